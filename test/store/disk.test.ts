import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Copy } from "../../src/store/contract.ts";
import { SnapshotGoneError } from "../../src/store/errors.ts";
import { Bench, PODS, SECRETS, contentOf, filesUnder, item, list, listedScope, numbered, keptIn } from "./support.ts";

/** A small file system of its own, gone at the end of the scope. */
class SmallDisk implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "holdfast-test-disk-"));

  constructor(sizeKb = 3_000) {
    run("mount", "-t", "tmpfs", "-o", `size=${sizeKb}k`, "tmpfs", this.path);
  }

  /** Takes all room but so many kilobytes. */
  fill(leaveKb = 0): void {
    const path = join(this.path, "filler");
    rmSync(path, { force: true });
    try {
      for (let size = 1; ; size++) writeFileSync(path, new Uint8Array(16_384), { flag: "a" });
    } catch {
      const { size } = statSync(path);
      run("truncate", "-s", String(Math.max(0, size - leaveKb * 1_024)), path);
    }
  }

  free(): void {
    rmSync(join(this.path, "filler"));
  }

  remount(how: "ro" | "rw"): void {
    run("mount", "-o", `remount,${how}`, this.path);
  }

  [Symbol.dispose](): void {
    run("umount", "-l", this.path);
    rmSync(this.path, { recursive: true });
  }
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr.toString()}`);
}

/** Needs root and the right to mount; elsewhere these are skipped by name. */
const testOnSmallDisk = canMount() ? test : test.skip;

function canMount(): boolean {
  const path = mkdtempSync(join(tmpdir(), "holdfast-test-disk-"));
  const isMounted =
    Bun.spawnSync(["sh", "-c", `mount -t tmpfs -o size=64k tmpfs ${path} && umount ${path}`]).exitCode === 0;
  rmSync(path, { recursive: true });
  return isMounted;
}

/** Puts objects until one of them no longer fits. */
function putUntilInMemory(bench: Bench, store: ReturnType<Bench["open"]>, copy: Copy): number {
  for (let n = 0; n < 5_000; n++) {
    copy.put(
      item(`big-${n}`, 1_000 + n, { text: crypto.getRandomValues(Buffer.alloc(2_000)).toString("base64") }),
      String(1_000 + n),
      1,
    );
    bench.clock.pass(1_000);
    if (store.status().mode === "memory") return n + 1;
  }
  throw new Error("the disk never filled");
}

describe("a full disk", () => {
  testOnSmallDisk("costs nothing that was kept, and is left for memory; with room again everything moves back", () => {
    using disk = new SmallDisk();
    using bench = new Bench(disk.path);
    const store = bench.open();
    const pods = listedScope(store, numbered(50));
    const secrets = listedScope(store, numbered(3), 100, SECRETS);
    store.putValue("cluster", Buffer.from("this one"));
    disk.fill(100);
    const put = putUntilInMemory(bench, store, pods);
    expect(store.status()).toMatchObject({ mode: "memory", reason: expect.stringMatching(/^SQLITE_(FULL|IOERR)/) });
    expect(contentOf(pods)).toHaveLength(50 + put);
    expect(pods.listed).toMatchObject({ resourceVersion: String(999 + put) });
    expect(contentOf(secrets)).toHaveLength(3);
    expect(Buffer.from(store.getValue("cluster")!).toString()).toBe("this one");
    expect(list(secrets, [...numbered(3), item("new", 150)], 200)).toEqual(["ADDED new@150"]);

    bench.clock.pass(61_000);
    expect(store.status().mode).toBe("memory");
    disk.free();
    using standing = pods.snapshot()!;
    // Back on the disk within a minute of the last try: who has just begun to read reads on through the move.
    let reading = pods.snapshot()!;
    while (store.status().mode === "memory") {
      reading[Symbol.dispose]();
      reading = pods.snapshot()!;
      bench.clock.pass(4_000);
    }
    expect(store.status()).toMatchObject({ mode: "disk", reason: "", path: bench.file });
    expect([...reading.items()]).toHaveLength(50 + put);
    reading[Symbol.dispose]();
    expect(() => [...standing.items()]).toThrow(SnapshotGoneError);
    expect(contentOf(pods)).toHaveLength(50 + put);
    expect(statSync(bench.file).mode & 0o777).toBe(0o600);
    pods.put(item("after", 9_000), "9000", 1);
    store.close();
    const again = bench.open();
    expect(contentOf(keptIn(again, pods))).toHaveLength(51 + put);
    expect(contentOf(keptIn(again, secrets))).toHaveLength(4);
    expect(again.verify().damaged).toBe(0);
    expect(readdirSync(bench.dir).sort()).toEqual(["cache.db", "cache.db-shm", "cache.db-wal", "keys", "lock"]);
  });

  testOnSmallDisk("met in the middle of a list keeps the list", () => {
    using disk = new SmallDisk();
    using bench = new Bench(disk.path);
    const store = bench.open();
    const copy = store.openCopy(PODS, 1);
    disk.fill(100);
    const items = numbered(500).map((one, n) =>
      item(one.meta.name, n + 1, { text: crypto.getRandomValues(Buffer.alloc(1_000)).toString("base64") }),
    );
    list(copy, items, 900);
    expect(store.status().mode).toBe("memory");
    // Rows staged before the disk was full are gone with it: then nothing is claimed, and the next list is whole.
    if (copy.listed === undefined) list(copy, items, 901);
    expect(contentOf(copy)).toHaveLength(500);
    expect(store.verify()).toEqual({ checked: 500, damaged: 0 });
    for (const one of items) copy.put({ ...item(one.meta.name, 1_000) }, "1000", 1);
    disk.free();
    store.close();
    expect(contentOf(keptIn(bench.open(), copy))).toHaveLength(500);
  });

  testOnSmallDisk("from the start is memory from the start", () => {
    using disk = new SmallDisk(256);
    using bench = new Bench(disk.path);
    disk.fill(0);
    const store = bench.open();
    expect(store.status()).toMatchObject({ mode: "memory", sealing: "memory" });
    const pods = listedScope(store, numbered(20));
    const secrets = listedScope(store, numbered(3), 100, SECRETS);
    expect(contentOf(pods)).toHaveLength(20);
    disk.free();
    store.close();
    const again = bench.open();
    // The key went to the disk with what it seals.
    expect(again.status()).toMatchObject({ mode: "disk", sealing: "file" });
    expect([contentOf(keptIn(again, pods))?.length, contentOf(keptIn(again, secrets))?.length]).toEqual([20, 3]);
  });

  testOnSmallDisk("a killed process leaves what was on it as it was last written", () => {
    using disk = new SmallDisk();
    using bench = new Bench(disk.path);
    const store = bench.open();
    const pods = listedScope(store, numbered(50));
    disk.fill(100);
    putUntilInMemory(bench, store, pods);
    disk.free();
    // Not closed, as when killed: the file is the one before.
    const again = bench.openAfterCrash();
    const { listed } = again.copies()[0]!;
    const content = contentOf(keptIn(again, pods))!;
    expect(content.length).toBeGreaterThanOrEqual(50);
    expect(listed?.resourceVersion).toBe(content.length === 50 ? "100" : String(1_000 + content.length - 51));
  });
});

describe("a read-only disk", () => {
  testOnSmallDisk("from the start serves what is on it, from memory", () => {
    using disk = new SmallDisk();
    using bench = new Bench(disk.path);
    const store = bench.open();
    const pods = listedScope(store, numbered(50));
    const secrets = listedScope(store, numbered(3), 100, SECRETS);
    store.putResponse(
      { principal: "p", target: "/version", accept: "a" },
      { status: 200, headers: {}, body: Buffer.from("{}"), storedAtMs: 1 },
      { isSecret: false },
    );
    store.close();
    const before = readFileSync(bench.file);
    disk.remount("ro");
    const locked = bench.open();
    expect(locked.status()).toMatchObject({ mode: "memory", sealing: "file", objects: 53, responses: 1 });
    expect(contentOf(keptIn(locked, pods))).toHaveLength(50);
    expect(contentOf(keptIn(locked, secrets))).toHaveLength(3);
    keptIn(locked, pods).put(item("new", 500), "500", 1);
    expect(contentOf(keptIn(locked, pods))).toHaveLength(51);
    bench.clock.pass(120_000);
    expect(locked.status().mode).toBe("memory");
    expect(readFileSync(bench.file).equals(before)).toBe(true);
    disk.remount("rw");
    bench.clock.pass(60_000);
    expect(locked.status().mode).toBe("disk");
    locked.close();
    expect(contentOf(keptIn(bench.open(), pods))).toHaveLength(51);
  });

  testOnSmallDisk("with a log that was not brought into the file serves a whole moment of it", () => {
    using disk = new SmallDisk();
    using bench = new Bench(disk.path);
    const store = bench.open();
    const pods = listedScope(store, numbered(50));
    store.flush();
    run(
      "sh",
      "-c",
      `mkdir ${disk.path}/copy && cp ${bench.file} ${bench.file}-wal ${disk.path}/copy/ && cp -r ${bench.dir}/keys ${disk.path}/copy/`,
    );
    store.close();
    disk.remount("ro");
    const locked = bench.open({ stateDir: join(disk.path, "copy") });
    expect(locked.status().mode).toBe("memory");
    const content = locked.copies().length === 0 ? undefined : contentOf(keptIn(locked, pods));
    expect([undefined, 50]).toContain(content?.length);
    locked.close();
    disk.remount("rw");
  });

  test("a folder that cannot be made is memory", () => {
    using bench = new Bench();
    writeFileSync(join(bench.dir, "file"), "");
    const store = bench.open({ stateDir: join(bench.dir, "file", "state") });
    expect(store.status()).toMatchObject({ mode: "memory", reason: "ENOTDIR", sealing: "memory" });
    const pods = listedScope(store, numbered(120));
    expect(contentOf(pods)).toHaveLength(120);
    const { path } = store.status();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    store.close();
    expect(() => statSync(path)).toThrow();
  });
});

describe("memory", () => {
  testOnSmallDisk(
    "holds what kubelet lives on when not everything has room",
    () => {
      using disk = new SmallDisk(90_000);
      using bench = new Bench(disk.path);
      const store = bench.open();
      const bulky = (from: number) =>
        Array.from({ length: 200 }, (_, n) =>
          item(`o-${n}`, from + n, { text: crypto.getRandomValues(Buffer.alloc(60_000)).toString("base64") }),
        );
      const maps = ["endpointslices", "services"].map((resource) =>
        listedScope(store, bulky(1), 500, { ...PODS, resource }),
      );
      const pods = listedScope(store, bulky(1), 500);
      disk.fill(0);
      putUntilInMemory(bench, store, pods);
      const { mode, sizeBytes } = store.status();
      expect(mode).toBe("memory");
      expect(sizeBytes).toBeLessThan(48 * 2 ** 20);
      expect(contentOf(pods)!.length).toBeGreaterThan(200);
      expect(maps.filter((copy) => copy.listed !== undefined).length).toBeLessThan(2);
      expect(store.verify().damaged).toBe(0);
    },
    30_000,
  );

  test("of a process that was killed is cleared away by the next one", () => {
    using bench = new Bench();
    const parent = join(bench.dir, "run");
    const left = join(parent, "holdfast-store-4194305-abc");
    const living = join(parent, `holdfast-store-${process.ppid}-abc`);
    for (const path of [left, living]) mkdirSync(path, { recursive: true });
    const before = process.env["RUNTIME_DIRECTORY"];
    process.env["RUNTIME_DIRECTORY"] = parent;
    try {
      writeFileSync(join(bench.dir, "file"), "");
      const store = bench.open({ stateDir: join(bench.dir, "file", "state") });
      expect(store.status().path).toStartWith(join(parent, `holdfast-store-${process.pid}-`));
      expect(readdirSync(parent)).toHaveLength(2);
      store.close();
      expect(readdirSync(parent)).toEqual([`holdfast-store-${process.ppid}-abc`]);
      expect(filesUnder(parent)).toEqual([]);
    } finally {
      if (before === undefined) delete process.env["RUNTIME_DIRECTORY"];
      else process.env["RUNTIME_DIRECTORY"] = before;
    }
  });
});
