/**
 * The arm64 executable on machines that are emulated whole, with --long: as
 * Cortex-A53, A72 and A76, with pages of 4 KB and of 16 KB, and of `run test`
 * what needs nothing but the executable, which is its own test runner there.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kernelOf16K, runInRam, whyNoRamMachine } from "./ram-machine.ts";
import { isLong, measured } from "./node-world.ts";
import { titled } from "./requirements.ts";

const ROOT = join(import.meta.dir, "../..");
const why = (isLong ? undefined : "takes --long") ?? whyNoRamMachine("arm64");
const why16K = why ?? (existsSync(kernelOf16K) ? undefined : `${kernelOf16K} is not there`);

/** Folders of tests that start no program and open nothing but sockets and files. */
const FAST = "base kube http1 store cache mux callers config".split(" ").map((name) => `test/${name}`);
const PACKAGES = ["valibot", "yaml", "hono", "jose", "fast-check", "pure-rand"];
const SMOKE = `holdfast version && grep -m1 KernelPageSize /proc/self/smaps && grep -m1 "CPU part" /proc/cpuinfo && mkdir -p /tmp/s && holdfast cache ls --state-dir /tmp/s; BUN_BE_BUN=1 holdfast -e '
  const { Database } = require("bun:sqlite"), crypto = require("node:crypto");
  const db = new Database("/tmp/s/x.db"); db.run("PRAGMA journal_mode = WAL"); db.run("CREATE TABLE t (v BLOB)");
  db.query("INSERT INTO t VALUES (?)").run(Bun.zstdCompressSync(Buffer.alloc(1e6, "a")));
  const { v } = db.query("SELECT v FROM t").get();
  const pair = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
  const isSigned = crypto.verify("sha256", v, pair.publicKey, crypto.sign("sha256", v, pair.privateKey));
  console.log("smoke", Bun.zstdDecompressSync(v).length, isSigned, process.arch);'`;

interface Run {
  readonly cpu: string;
  readonly kernel?: string;
  readonly script: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly memoryMiB?: number;
  readonly timeoutMs: number;
}

async function within({ script, files = {}, ...start }: Run) {
  const directory = mkdtempSync(join(tmpdir(), "holdfast-arm64-"));
  try {
    return await runInRam(directory, { arch: "arm64", script, files }, start);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

describe.skipIf(why !== undefined)(titled("the arm64 executable on an emulated machine", why), () => {
  test.each([
    ["cortex-a53", "0xd03"],
    ["cortex-a72", "0xd08"],
    ["cortex-a76", "0xd0b"],
  ])(
    "starts on %s, stores, packs and signs",
    async (cpu, part) => {
      const { code, said } = await within({ cpu, script: SMOKE, timeoutMs: 600_000 });
      expect({ code, said }).toMatchObject({ code: 0 });
      expect(said).toMatch(/^0\.\d+\.\d+|holdfast/m);
      expect(said).toContain(part);
      expect(said).toMatch(/KernelPageSize: +4 kB/);
      expect(said).toContain("smoke 1000000 true arm64");
    },
    620_000,
  );

  test.skipIf(why16K !== undefined)(
    titled("starts with pages of 16 KB, stores, packs and signs", why16K),
    async () => {
      const { code, said } = await within({
        cpu: "cortex-a76",
        kernel: kernelOf16K,
        script: SMOKE,
        timeoutMs: 600_000,
      });
      expect({ code, said }).toMatchObject({ code: 0 });
      expect(said).toMatch(/KernelPageSize: +16 kB/);
      expect(said).toContain("smoke 1000000 true arm64");
    },
    620_000,
  );

  test.each([
    ["cortex-a72", undefined],
    ["cortex-a76", kernelOf16K],
  ])(
    "runs the fast tests on %s, kernel %s",
    async (cpu, kernel) => {
      if (kernel !== undefined && why16K !== undefined) return;
      const sources = ["package.json", "tsconfig.json", "src", ...FAST, "test/support"];
      const packages = PACKAGES.map((name) => `node_modules/${name}`).filter((path) => existsSync(join(ROOT, path)));
      const files = Object.fromEntries([...sources, ...packages].map((path) => [`repo/${path}`, join(ROOT, path)]));
      const script = `cd /repo && BUN_BE_BUN=1 holdfast test --timeout=120000 ${FAST.join(" ")}`;
      const { code, said } = await within({
        cpu,
        ...(kernel === undefined ? {} : { kernel }),
        script,
        files,
        memoryMiB: 3_072,
        timeoutMs: 2_400_000,
      });
      const sum = said
        .slice(-400)
        .match(/\d+ (pass|fail|skip)/g)
        ?.join(", ");
      measured(`fast tests on an emulated ${cpu}${kernel === undefined ? "" : ", pages of 16 KB"}`, sum ?? "no end");
      const failed = said.match(/^\(fail\).*$/gm) ?? [];
      expect({ code, failed, end: code === 0 ? "" : said.slice(-3_000) }).toEqual({ code: 0, failed: [], end: "" });
    },
    2_500_000,
  );
});
