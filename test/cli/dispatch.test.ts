import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMMANDS, UsageError, nearest, readFlags } from "../../src/cli/command.ts";
import { holdfast } from "./holdfast.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-dispatch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("every command is in the help and has its own", async () => {
  const { code, stdout } = await holdfast("--help");
  expect(code).toBe(0);
  for (const { name, summary } of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${name} +${summary}$`, "m"));
  const ofOne = await holdfast("help", "version");
  expect(ofOne).toEqual(await holdfast("version", "--help"));
  expect(ofOne.stdout).toContain("holdfast version [-o json]");
});

test("no command is a usage error that shows the help", async () => {
  const { code, stdout } = await holdfast();
  expect(code).toBe(2);
  expect(stdout).toContain("Commands:");
});

describe("what was mistyped is named, with what may have been meant, and exit code 2", () => {
  test.each([
    [["statsu"], 'there is no command "statsu"; did you mean "status"'],
    [["stat"], 'there is no command "stat"; did you mean "status"'],
    [["xyzzy"], 'there is no command "xyzzy"\n'],
    [["help", "cahce"], 'there is no command "cahce"; did you mean "cache"'],
    [["run", "--kubeconfg", "x"], "Unknown option '--kubeconfg'; did you mean '--kubeconfig'"],
    [["version", "--colour"], "Unknown option '--colour'\n"],
    [["version", "-o", "yaml"], "Unknown output 'yaml'; expected json"],
    [["completion", "bsh"], "Unknown shell 'bsh'; did you mean 'bash'"],
    [["completion", "toString"], "Unknown shell 'toString'\n"],
  ])("%p", async (args, message) => {
    const { code, stdout, stderr } = await holdfast(...args);
    expect(stderr).toContain(message);
    expect(stderr).toContain("See: holdfast help");
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });
});

test("nearest allows a slip in three letters", () => {
  expect(nearest("rn", ["run", "status"])).toBe("run");
  expect(nearest("x", ["run", "status"])).toBeUndefined();
  expect(nearest("--stat-dir", ["--state-dir", "--config"])).toBe("--state-dir");
});

test("flags are read as --x=y and --x y, and twice only where that means something", () => {
  const options = { config: { type: "string" }, listen: { type: "string", multiple: true } } as const;
  const { values } = readFlags(["--config=a", "--listen", "b", "--listen=c"], options);
  expect({ ...values }).toEqual({ config: "a", listen: ["b", "c"] });
  expect(() => readFlags(["--config"], options)).toThrow(UsageError);
});

test("version -o json says what scripts compare", async () => {
  const { stdout } = await holdfast("version", "-o", "json");
  expect(JSON.parse(stdout)).toMatchObject({ program: "holdfast", version: "dev", runtime: `bun ${Bun.version}` });
});

describe("completion", () => {
  test("bash completes commands, their words and flags", async () => {
    const script = join(folder, "completion.bash");
    writeFileSync(script, (await holdfast("completion", "bash")).stdout);
    const complete = (...words: string[]) => {
      const line = `. ${script}; COMP_WORDS=(holdfast ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}; cd ${folder}; _holdfast; echo "\${COMPREPLY[@]}"`;
      return Bun.spawnSync(["bash", "-c", line]).stdout.toString().trim();
    };
    expect(complete("st")).toBe("status");
    expect(complete("cache", "v")).toBe("verify");
    expect(complete("run", "--kub")).toBe("--kubeconfig");
    expect(complete("help", "comp")).toBe("completion");
    expect(complete("run", "compl")).toBe("completion.bash");
  });

  test.each(["zsh", "fish"])(
    "%s names every command and flag, and its parser takes it if it is here",
    async (shell) => {
      const { stdout, code } = await holdfast("completion", shell);
      expect(code).toBe(0);
      for (const { name, flags, words = [] } of COMMANDS) {
        for (const word of [name, ...flags.map((flag) => flag.replace(/^-+/, "")), ...words])
          expect(stdout).toContain(word);
      }
      if (Bun.which(shell) === null) return;
      const script = join(folder, `completion.${shell}`);
      writeFileSync(script, stdout);
      expect(Bun.spawnSync([shell, "-n", script]).exitCode).toBe(0);
    },
  );
});

describe("what is printed", () => {
  const writer = join(folder, "writer.ts");
  const command = JSON.stringify(join(import.meta.dir, "..", "..", "src", "cli", "command.ts"));
  writeFileSync(writer, `import { print } from ${command};\nprint("x".repeat(4_000_000));\nprocess.exit(3);\n`);

  test("arrives whole at a slow reader, though the process exits right after", () => {
    const line = `("$0" "$1"; echo "exit $?" >&2) | (sleep 0.3; wc -c)`;
    const { stdout, stderr } = Bun.spawnSync(["sh", "-c", line, process.execPath, writer]);
    expect(Number(stdout.toString())).toBe(4_000_001);
    expect(stderr.toString()).toBe("exit 3\n");
  });

  test("ends quietly when the reader has had enough", () => {
    const line = `("$0" "$1"; echo "exit $?" >&2) | head -c 5`;
    const { stdout, stderr } = Bun.spawnSync(["bash", "-c", line, process.execPath, writer]);
    expect(stdout.toString()).toBe("xxxxx");
    expect(stderr.toString()).toBe("exit 141\n");
  });
});
