import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { holdfast } from "../cli/holdfast.ts";
import { unitFiles } from "../../src/machine/units.ts";

const analyze = Bun.which("systemd-analyze");
const folder = mkdtempSync(join(tmpdir(), "holdfast-units-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function text(name: string, profile: "small" | "default" = "default"): string {
  const found = unitFiles({ profile, binary: "/usr/local/bin/holdfast" }).find(({ path }) => path.endsWith(`/${name}`));
  if (found === undefined) throw new Error(`no ${name}`);
  return found.text;
}

/** Writes them as the command does, with stand-ins for the programs they start. */
async function stagedRoot(profile: string): Promise<string> {
  const root = join(folder, profile);
  const { code, stderr } = await holdfast("units", "--profile", profile, "--output-dir", root);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  for (const program of ["usr/local/bin/holdfast", "usr/bin/systemd-creds", "bin/sh", "bin/mkdir", "bin/rm"]) {
    mkdirSync(join(root, program, ".."), { recursive: true });
    writeFileSync(join(root, program), "#!/bin/sh\n");
    chmodSync(join(root, program), 0o755);
  }
  for (const target of ["sysinit", "basic", "shutdown", "multi-user", "local-fs", "timers"])
    writeFileSync(join(root, "etc/systemd/system", `${target}.target`), "[Unit]\n");
  return root;
}

describe("units", () => {
  test.each([
    ["no start limit", "StartLimitIntervalSec=0"],
    ["comes back", "Restart=always"],
    ["stands before kubelet", "Before=kubelet.service"],
    ["dumps no core (docs/decisions.md)", "LimitCORE=1"],
  ])("the daemon's unit has %s", (_, line) => {
    expect(text("holdfast.service").split("\n")).toContain(line);
  });

  test("nothing that is refused at the start, and nothing that runs foreign code, is inherited", () => {
    const [, unset = ""] = /^UnsetEnvironment=(.*)$/m.exec(text("holdfast.service")) ?? [];
    const names = unset.split(" ");
    for (const name of ["NODE_TLS_REJECT_UNAUTHORIZED", "BUN_CONFIG_VERBOSE_FETCH", "BUN_OPTIONS", "BUN_BE_BUN"])
      expect(names).toContain(name);
  });

  test("the small profile has less memory and no writable code, the default one keeps its compiler", () => {
    expect(text("holdfast.service", "small")).toContain("MemoryDenyWriteExecute=yes");
    expect(text("holdfast.service", "small")).toContain("HOLDFAST_PROFILE=small");
    expect(text("holdfast.service")).not.toContain("MemoryDenyWriteExecute=");
    const most = (profile: "small" | "default") =>
      Number(/^MemoryMax=(\d+)M$/m.exec(text("holdfast.service", profile))![1]);
    expect(most("small")).toBeLessThan(most("default"));
  });

  test("no unit binds another: nothing is required", () => {
    for (const { text: unit } of unitFiles({ profile: "default", binary: "/x" }))
      expect(unit).not.toMatch(/^(Requires|BindsTo|Requisite|PartOf)=/m);
  });

  test("holdfast units prints what it writes", async () => {
    const root = await stagedRoot("default");
    const { stdout } = await holdfast("units", "--profile", "default");
    for (const { path, mode } of unitFiles({ profile: "default", binary: "/usr/local/bin/holdfast" })) {
      expect(stdout).toContain(readFileSync(join(root, path), "utf8"));
      expect(statSync(join(root, path)).mode & 0o777).toBe(mode);
    }
  });

  test.each([
    [["--profile", "huge"], "expected small or default"],
    [["--binary", "/opt/my tools/holdfast"], "absolute path"],
    [["now"], "Unexpected argument"],
  ])("holdfast units %p is refused in words", async (args, words) => {
    const { code, stderr } = await holdfast("units", ...args);
    expect(code).toBe(2);
    expect(stderr).toContain(words);
  });

  test.skipIf(analyze === null).each(["small", "default"])(
    "systemd-analyze (skipped where it is missing): the %s units verify without a word, exposure at most 1.5",
    async (profile) => {
      const root = await stagedRoot(profile);
      const units = join(root, "etc/systemd/system");
      for (const name of readdirSync(units).filter((one) => one.startsWith("holdfast"))) {
        const { stderr, exitCode } = Bun.spawnSync([analyze!, "verify", "--man=no", `--root=${root}`, name]);
        const complaints = stderr
          .toString()
          .split("\n")
          .filter((line) => line.includes("holdfast"));
        expect({ name, complaints, exitCode }).toEqual({ name, complaints: [], exitCode: 0 });
      }
      const { stdout, exitCode } = Bun.spawnSync([
        ...[analyze!, "security", "--offline=yes", "--threshold=15", join(units, "holdfast.service")],
      ]);
      expect({ exitCode, verdict: stdout.toString().split("\n").at(-2) }).toEqual({
        exitCode: 0,
        verdict: expect.stringContaining("Overall exposure level"),
      });
    },
  );
});
