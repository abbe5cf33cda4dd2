/**
 * That the flags of the build mean what they say, and that a file which is not
 * what was built is found out.
 */

import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TARGETS, checkIdentity, compile } from "../../scripts/build-targets.ts";
import { projectRoot } from "../../scripts/setup.ts";

const dist = join(projectRoot, "dist");
const binary = process.env["HOLDFAST_BINARY"] ?? join(dist, `holdfast-linux-${process.arch}`);
const folder = mkdtempSync(join(tmpdir(), "holdfast-build-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("both targets have their reason and their own name", () => {
  expect(TARGETS.map(({ name }) => name)).toEqual(["holdfast-linux-x64", "holdfast-linux-arm64"]);
  expect(TARGETS.every(({ reason }) => reason.length > 20)).toBe(true);
});

test("a program compiled as the executables are runs in small heaps, with large heads, top-level await, places in its source, and .env unread", async () => {
  const entry = join(folder, "probe.ts");
  writeFileSync(
    entry,
    `import * as http from "node:http";
     declare const PROBED: string;
     await Bun.sleep(1);
     const place = new Error().stack;
     console.log(JSON.stringify({ execArgv: process.execArgv, head: http.maxHeaderSize, env: process.env.PLANTED ?? null,
       probed: PROBED, hasPlace: place.includes("probe.ts:4") }));`,
  );
  writeFileSync(join(folder, ".env"), "PLANTED=yes\n");
  const probe = join(folder, "probe");
  const { bunTarget } = TARGETS.find(({ arch }) => arch === process.arch)!;
  await compile({ entry, outfile: probe, bunTarget, defines: { PROBED: "yes" } });
  const said = JSON.parse(Bun.spawnSync([probe], { cwd: folder }).stdout.toString()) as Record<string, unknown>;
  expect(said).toEqual({
    execArgv: ["--smol", "--max-http-header-size=131072"],
    head: 131_072,
    env: null,
    probed: "yes",
    hasPlace: true,
  });
});

test("what cannot be compiled is said in the bundler's words", async () => {
  const entry = join(folder, "broken.ts");
  writeFileSync(entry, `import "./nowhere.ts";`);
  const { bunTarget } = TARGETS[0]!;
  await expect(compile({ entry, outfile: join(folder, "broken"), bunTarget })).rejects.toThrow(/nowhere/);
});

describe.skipIf(!existsSync(binary))("the identity of a file (needs dist/)", () => {
  const said = (): { version: string; commit: string } =>
    JSON.parse(Bun.spawnSync([binary, "version", "-o", "json"]).stdout.toString()) as never;

  test("is that of package.json", () => {
    const { version } = JSON.parse(readFileSync(join(projectRoot, "package.json"), "utf8")) as { version: string };
    expect(said().version).toBe(version);
    checkIdentity([binary], said());
  });

  test("is refused for another version or commit", () => {
    expect(() => checkIdentity([binary], { ...said(), version: "9.9.9" })).toThrow(/Cannot trust/);
    expect(() => checkIdentity([binary], { ...said(), commit: "000000000000" })).toThrow(/Cannot trust/);
  });

  test.skipIf(Bun.which("strip") === null)(
    "is lost by a stripped file, which exits 0 all the same (needs strip)",
    () => {
      const stripped = join(folder, "stripped");
      copyFileSync(binary, stripped);
      chmodSync(stripped, 0o755);
      Bun.spawnSync(["strip", stripped]);
      expect(Bun.spawnSync([stripped]).exitCode).toBe(0);
      expect(() => checkIdentity([stripped], said())).toThrow(/was it stripped/);
    },
  );

  test("a checksum in dist is one that sha256sum takes", () => {
    const name = `holdfast-linux-${process.arch}.sha256`;
    if (!existsSync(join(dist, name))) return;
    expect(readFileSync(join(dist, name), "utf8")).toMatch(/^[0-9a-f]{64} {2}holdfast-linux-\w+\n$/);
  });
});
