import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMMANDS } from "../../src/cli/commands.ts";
import { holdfast } from "./holdfast.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-completion-"));
mkdirSync(join(folder, "a folder"));
writeFileSync(join(folder, "afile.yaml"), "");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a line in a shell, in the folder above. */
function inShell(shell: string, line: string): string {
  const flags: Readonly<Record<string, readonly string[]>> = { bash: ["--norc"], zsh: ["-f"], fish: ["--no-config"] };
  const { stdout, stderr, exitCode } = Bun.spawnSync([shell, ...flags[shell]!, "-c", line], {
    cwd: folder,
    env: { PATH: process.env["PATH"] ?? "", HOME: folder, TERM: "dumb" },
  });
  if (exitCode !== 0 || stderr.length > 0) throw new Error(`${shell} says ${stderr.toString()} (${exitCode})`);
  return stdout.toString().trim();
}

async function scriptOf(shell: string): Promise<string> {
  const { code, stdout } = await holdfast("completion", shell);
  expect(code).toBe(0);
  const path = join(folder, shell === "zsh" ? "_holdfast" : `completion.${shell}`);
  writeFileSync(path, stdout);
  return path;
}

/** What a shell offers behind these words, one on a line. */
const offers: Readonly<Record<string, (script: string, words: readonly string[]) => string>> = {
  bash: (script, words) =>
    inShell(
      "bash",
      `. ${script}; COMP_WORDS=(holdfast ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}; _holdfast; printf '%s\\n' "\${COMPREPLY[@]}"`,
    ),
  // What the script hands to zsh's own builtins is printed in their place; that they choose by the last word is zsh's.
  zsh: (script, words) =>
    inShell(
      "zsh",
      `compdef() { :; }; compadd() { shift; print -rl -- "$@"; }; _files() { print -l FILES "$@"; }; _message() { print VALUE; }
       _describe() { local name=$@[-1] one; for one in "\${(@P)name}"; do print -r -- "\${one%%:*}"; done; }
       source ${script}; words=(holdfast ${words.map((word) => `'${word}'`).join(" ")}); CURRENT=$#words; _holdfast`,
    )
      .split("\n")
      .filter((line) => line.startsWith("FILES") || line === "-/" || line.startsWith(words.at(-1)!))
      .join("\n"),
  fish: (script, words) =>
    inShell("fish", `source ${script}; complete -C 'holdfast ${words.join(" ")}'`)
      .split("\n")
      .map((line) => line.split("\t")[0])
      .join("\n"),
};

for (const shell of ["bash", "zsh", "fish"]) {
  describe.skipIf(Bun.which(shell) === null)(
    `completion in a real ${shell}${Bun.which(shell) === null ? ` (there is no ${shell} here)` : ""}`,
    () => {
      test("loads without a word of complaint", async () => {
        const script = await scriptOf(shell);
        expect(
          inShell(
            shell,
            shell === "zsh"
              ? `autoload -Uz compinit; compinit -D -u; source ${script}; print $_comps[holdfast]`
              : `. ${script}; echo _holdfast`,
          ),
        ).toBe("_holdfast");
      });

      test.each([
        ["a command", ["st"], "status", "run"],
        ["help's commands", ["help", "comp"], "completion", "ls"],
        ["a command's words", ["cache", "v"], "verify", "explain"],
        ["a flag", ["run", "--kub"], "--kubeconfig", "--policies-only"],
        ["what a flag's value may be", ["manifests", "--format", ""], "kustomize", "--bound"],
        ["what a short flag's value may be", ["cache", "get", "-o", ""], "raw", "--state-dir"],
      ])("%s", async (_, words, wanted, unwanted) => {
        const offered = offers[shell]!(await scriptOf(shell), words).split("\n");
        expect(offered).toContain(wanted);
        expect(offered).not.toContain(unwanted);
      });

      test("a file where a flag wants a file, a folder where it wants a folder", async () => {
        const script = await scriptOf(shell);
        const file = offers[shell]!(script, ["run", "--kubeconfig", "a"]);
        const place = offers[shell]!(script, ["run", "--state-dir", "a"]);
        expect(file).toContain(shell === "zsh" ? "FILES" : "afile.yaml");
        if (shell === "zsh") expect(place.split("\n")).toEqual(["FILES", "-/"]);
        else expect(place).toMatch(/^a(\\)? ?folder\/?$/);
      });

      test("every summary and every flag's words are there as they are, apostrophes too", async () => {
        const script = await scriptOf(shell);
        const texts = COMMANDS.flatMap(({ summary, flags }) => [
          summary,
          ...Object.values(flags).map(({ about }) => about),
        ]);
        expect(texts.some((text) => text.includes("'"))).toBe(true);
        if (shell !== "fish") return;
        for (const { name, flags } of COMMANDS) {
          const all = inShell("fish", `source ${script}; complete -C 'holdfast ${name} --'`);
          for (const { about } of Object.values(flags)) expect(all).toContain(about);
        }
      });
    },
  );
}

test("zsh finds it on its path of functions", async () => {
  if (Bun.which("zsh") === null) return;
  await scriptOf("zsh");
  expect(
    inShell("zsh", `fpath=(${folder} $fpath); autoload -Uz compinit; compinit -D -u; print $_comps[holdfast]`),
  ).toBe("_holdfast");
});
