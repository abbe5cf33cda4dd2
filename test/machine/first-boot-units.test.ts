import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { firstBootUnits } from "../../src/machine/image/first-boot-units.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-first-boot-units-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const analyze = Bun.which("systemd-analyze");

function unit(name: string): string {
  return firstBootUnits("/usr/local/bin/holdfast").find(({ path }) => path.endsWith(`/${name}`))!.text;
}

test.skipIf(analyze === null)(
  "systemd-analyze (skipped where it is missing): verified without a word, no circle",
  () => {
    const root = join(folder, "root");
    const put = (path: string, text: string) => {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
      chmodSync(join(root, path), text.startsWith("#!") ? 0o755 : 0o644);
    };
    for (const program of ["usr/local/bin/holdfast", "usr/bin/ssh-keygen", "bin/sh"]) put(program, "#!/bin/sh\n");
    // In the order in which systemd's own stand, so that a circle through them is one here too.
    const after = (target: string) => `[Unit]\nRequires=${target}.target\nAfter=${target}.target\n`;
    const targets = {
      sysinit: "[Unit]\nWants=holdfast-clock.service\n",
      basic: after("sysinit"),
      "multi-user": after("basic"),
    };
    const others = ["shutdown", "local-fs", "time-set", "time-sync", "network"].map((name) => [name, "[Unit]\n"]);
    for (const [name, text] of [...Object.entries(targets), ...others]) put(`etc/systemd/system/${name}.target`, text!);
    for (const { path, text } of firstBootUnits("/usr/local/bin/holdfast")) put(path.slice(1), text);
    for (const { path } of firstBootUnits("/usr/local/bin/holdfast")) {
      const name = path.slice(path.lastIndexOf("/") + 1);
      const { stderr, exitCode } = Bun.spawnSync([
        analyze!,
        "verify",
        "--man=no",
        `--root=${root}`,
        name,
        "multi-user.target",
      ]);
      const complaints = stderr
        .toString()
        .split("\n")
        .filter((line) => /holdfast|cycle/.test(line));
      expect({ name, complaints, exitCode }).toEqual({ name, complaints: [], exitCode: 0 });
    }
  },
);

describe("the clock's floor", () => {
  /** Runs the unit's own line over a state folder, with a clock that shows this. @returns what it set, or nothing. */
  function run(name: string, clockSeconds: number, ageOf: Readonly<Record<string, number>>): number | undefined {
    const place = join(folder, name);
    for (const [path, seconds] of Object.entries(ageOf)) {
      mkdirSync(dirname(join(place, "state", path)), { recursive: true });
      writeFileSync(join(place, "state", path), "");
      utimesSync(join(place, "state", path), seconds, seconds);
    }
    for (const path of ["state/pki", "state"])
      if (existsSync(join(place, path))) utimesSync(join(place, path), 1_000, 1_000);
    mkdirSync(join(place, "bin"), { recursive: true });
    const clock = `#!/bin/sh\ncase $1 in +%s) echo ${clockSeconds} ;; -s) echo "$2" > ${place}/set ;; esac\n`;
    writeFileSync(join(place, "bin/date"), clock);
    chmodSync(join(place, "bin/date"), 0o755);
    const [, script = ""] = /^ExecStart=\/bin\/sh -c '(.*)'$/m.exec(unit("holdfast-clock.service")) ?? [];
    expect(script).not.toBe("");
    // As systemd hands it to the shell.
    const line = script.replaceAll("$$", "$").replaceAll("%%", "%").replaceAll("/var/lib/holdfast", `${place}/state`);
    const done = Bun.spawnSync(["/bin/sh", "-c", line], {
      env: { PATH: `${place}/bin:/usr/bin:/bin` },
      stderr: "pipe",
    });
    expect({ exitCode: done.exitCode, stderr: done.stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
    return existsSync(join(place, "set")) ? Number(readFileSync(join(place, "set"), "utf8").slice(1)) : undefined;
  }

  test.each([
    [
      "one that forgot goes on from the newest thing that was written",
      946_684_800,
      { "cache.db": 1_900_000_000, "pki/renewals.json": 1_800_000_000 },
      1_900_000_000,
    ],
    [
      "the newest may lie among the certificates",
      946_684_800,
      { "cache.db": 1_800_000_000, "pki/renewals.json": 1_900_000_000 },
      1_900_000_000,
    ],
    ["a clock that is ahead of it is right, and stays", 1_950_000_000, { "cache.db": 1_900_000_000 }, undefined],
    ["an empty folder says nothing", 946_684_800, {}, undefined],
  ] as const)("%s", (name, clock, files, expected) => {
    expect(run(name.replaceAll(" ", "-"), clock, files as Record<string, number>)).toBe(expected!);
  });
});

test("the first boot's unit ends for good with the mark that first boot leaves, and speaks to the console", () => {
  const text = unit("holdfast-first-boot.service");
  expect(text).toContain("ConditionPathExists=!/var/lib/holdfast/first-boot.done\n");
  expect(text).toContain("StandardOutput=journal+console\n");
  expect(text).toContain("StartLimitIntervalSec=0\n");
});
