import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMMANDS } from "../../src/cli/commands.ts";
import { readFlags } from "../../src/cli/flags.ts";

const root = join(import.meta.dir, "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const [, section = ""] = /^## On a Raspberry Pi[^\n]*\n([^]*?)\n## /m.exec(readme) ?? [];
const lines = [...section.matchAll(/^ {4}(\S.*?)(?: {2,}#.*)?$/gm)].map(([, line]) => line!);
const place = mkdtempSync(join(tmpdir(), "holdfast-readme-"));
afterAll(() => rmSync(place, { recursive: true, force: true }));

describe("README's first screen", () => {
  test("leads through install, adopt, status, revert in six lines", () => {
    expect(readme.split("\n").findIndex((line) => line.startsWith("## "))).toBe(
      readme.split("\n").findIndex((line) => line.startsWith("## On a Raspberry Pi")),
    );
    expect(lines).toHaveLength(6);
    const at = ["install.sh", "holdfast adopt", "holdfast status", "holdfast revert"].map((word) =>
      lines.findIndex((line) => line.includes(word)),
    );
    expect(at).toEqual(at.toSorted((a, b) => a - b));
    expect(at[0]).toBeGreaterThanOrEqual(0);
  });

  test.each(lines.filter((line) => line.startsWith("holdfast ")))(
    "%s: the command is there, its flags parse",
    (line) => {
      const [, name, ...args] = line.split(" ");
      const row = COMMANDS.find((one) => one.name === name);
      expect(row?.name).toBe(name!);
      expect(readFlags(args, row!.flags).positionals).toEqual([]);
    },
  );

  test.each(lines.filter((line) => line.includes("install.sh")))("%s: install.sh takes it", (line) => {
    const [, settings = "", args = ""] = /^((?:[A-Z_]+=\S+ )*)sh install\.sh ?(.*)$/.exec(line) ?? [];
    const env = Object.fromEntries(
      settings
        .trim()
        .split(" ")
        .filter(Boolean)
        .map((one) => one.split("=")),
    );
    for (const name of Object.keys(env))
      expect(readFileSync(join(root, "install.sh"), "utf8")).toContain(`${name}=\${${name}:-`);
    const { exitCode, stderr } = Bun.spawnSync(["sh", "install.sh", ...args.split(" ").filter(Boolean), "--dry-run"], {
      cwd: root,
      env: { PATH: process.env["PATH"]!, HOLDFAST_ROOT: place, ...env },
    });
    expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  });

  test.each(lines.filter((line) => line.startsWith("npx ")))("%s: package.json has the script", (line) => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    expect(Object.keys(scripts)).toContain(line.split(" ").at(-1)!);
  });
});
