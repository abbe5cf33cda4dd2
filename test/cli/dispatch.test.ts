import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMMANDS } from "../../src/cli/commands.ts";
import { readFlags, shellWord, UsageError } from "../../src/cli/flags.ts";
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

test("flags are read as --x=y and --x y, and twice only where that means something", () => {
  const options = { config: { type: "string" }, listen: { type: "string", multiple: true } } as const;
  const { values } = readFlags(["--config=a", "--listen", "b", "--listen=c"], options);
  expect({ ...values }).toEqual({ config: "a", listen: ["b", "c"] });
  expect(() => readFlags(["--config"], options)).toThrow(UsageError);
});

test("every flag of the table is in its command's help, with its value and its default", async () => {
  for (const { name, flags } of COMMANDS) {
    const { stdout } = await holdfast("help", name);
    for (const [flag, { about, value, otherwise }] of Object.entries(flags)) {
      expect(stdout).toContain(`--${flag}${value === undefined ? "" : ` ${value}`}`);
      expect(stdout).toContain(about);
      if (otherwise !== undefined) expect(stdout).toContain(`(${otherwise})`);
    }
  }
});

test("a word that a hint repeats is one word to a shell", () => {
  for (const word of ["/var/lib/x", "a b", "it's", "$(id)", "", "a;b"]) {
    const { stdout } = Bun.spawnSync(["sh", "-c", `printf %s ${shellWord(word)}`]);
    expect(stdout.toString()).toBe(word);
  }
});

describe("no stack trace reaches a user", () => {
  test.each([
    ["a folder that is a file", ["cache", "ls", "--state-dir", "/etc/hostname"]],
    ["a socket that is a folder", ["status", "--admin-socket", "/tmp"]],
    ["a folder of manifests below a file", ["manifests", "--format", "helm", "--output-dir", "/etc/hostname/x"]],
    ["a folder of manifests that is a file", ["manifests", "--format", "helm", "--output-dir", "/etc/hostname"]],
    ["a kubeconfig that is a folder", ["guard", "explain", "n", "--kubeconfig", "/tmp"]],
    ["a configuration that is a folder", ["status", "--config", "/tmp"]],
  ])("%s", async (_, args) => {
    const { code, stderr } = await holdfast(...args);
    expect(code).toBeGreaterThan(0);
    expect(stderr).toStartWith(`holdfast ${args[0]}`);
    expect(stderr).not.toMatch(/\n\s+at |node:|\$bunfs|\.ts:\d/);
    expect(stderr.trimEnd().split("\n").length).toBeLessThanOrEqual(3);
  });
});

test("version -o json says what scripts compare", async () => {
  const { stdout } = await holdfast("version", "-o", "json");
  expect(JSON.parse(stdout)).toMatchObject({ program: "holdfast", version: "dev", runtime: `bun ${Bun.version}` });
});

describe("what is printed", () => {
  const writer = join(folder, "writer.ts");
  const command = JSON.stringify(join(import.meta.dir, "..", "..", "src", "cli", "terminal.ts"));
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
