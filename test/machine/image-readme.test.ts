import { afterAll, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { joinOptionsOf, readJoinText } from "../../src/machine/join-options.ts";
import { executable } from "./executable.ts";

const main = join(import.meta.dir, "../../src/main.ts");
const page = readFileSync(join(import.meta.dir, "../../docs/device-images.md"), "utf8");
const place = mkdtempSync(join(tmpdir(), "holdfast-image-readme-"));
afterAll(() => rmSync(place, { recursive: true, force: true }));

/** The first block of lines set off below a heading or behind a sentence. */
function blockAfter(words: string): string {
  const [, block = ""] = /\n\n((?: {4}.*\n)+)/.exec(page.slice(page.indexOf(words))) ?? [];
  return block.replaceAll(/^ {4}/gm, "");
}

test("the builder's page: its commands work as they stand, with its configuration", () => {
  for (const folder of ["rootfs/etc", "rootfs/usr/bin", "rootfs/usr/lib"])
    mkdirSync(join(place, folder), { recursive: true });
  symlinkSync("usr/lib", join(place, "rootfs/lib"));
  copyFileSync(Bun.which("sh")!, join(place, "rootfs/usr/lib/ld-linux-aarch64.so.1"));
  writeFileSync(join(place, "rootfs/etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
  writeFileSync(join(place, "holdfast-linux-arm64"), executable("arm64"));
  writeFileSync(join(place, "config.yaml"), blockAfter("The smallest `config.yaml`"));
  const lines = blockAfter("## Into any root file system").trim().split("\n");
  expect(lines).toHaveLength(2);
  for (const line of lines) {
    const [program, ...args] = line.split(" ");
    expect(program).toBe("holdfast");
    const { exitCode, stderr } = Bun.spawnSync([process.execPath, main, ...args], { cwd: place, stderr: "pipe" });
    expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  }
  expect(readFileSync(join(place, "rootfs/etc/machine-id"), "utf8")).toBe("");
  expect(executable("arm64").equals(readFileSync(join(place, "rootfs/usr/local/bin/holdfast")))).toBe(true);
});

test("the builder's page: its join file can be used", () => {
  const text = blockAfter("## First boot").replace("sha256:...", `sha256:${"a".repeat(64)}`);
  expect(joinOptionsOf(readJoinText("holdfast-join.yaml", text), "gateway")).toMatchObject({
    server: "https://10.0.0.2:6443",
    nodeName: "gw-1",
  });
});

test("the builder's page: the lines for pi-gen are shell", () => {
  const [, script = ""] = /```sh\n([^]*?)```/.exec(page) ?? [];
  expect(script).toContain("holdfast image provision");
  expect(Bun.spawnSync(["sh", "-n"], { stdin: new Blob([script]) }).success).toBe(true);
});
