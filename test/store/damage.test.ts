import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { ScopeDamagedError } from "../../src/store/errors.ts";
import { APPLICATION_ID, SCHEMA_VERSION, migrate, pragma } from "../../src/store/schema.ts";
import type { Copy } from "../../src/store/contract.ts";
import { Bench, PODS, contentOf, item, list, listedScope, numbered, keptIn } from "./support.ts";

/** Writes over a part of the file. */
function overwrite(path: string, at: number, bytes: Uint8Array): void {
  const file = openSync(path, "r+");
  writeSync(file, bytes, 0, bytes.length, at);
  closeSync(file);
}

function aside(bench: Bench): string[] {
  return readdirSync(bench.dir)
    .filter((name) => name.startsWith("cache.db."))
    .sort();
}

/** Fills two scopes, an answer and a value, and closes. */
function filled(bench: Bench): { readonly pods: Copy; readonly maps: Copy } {
  const store = bench.open();
  const pods = listedScope(store, numbered(400, 1, "x".repeat(300)));
  const maps = listedScope(store, [item("map", 1)], 50, { ...PODS, resource: "configmaps" });
  store.putResponse(
    { principal: "p", target: "/version", accept: "a" },
    { status: 200, headers: {}, body: Buffer.from("{}"), storedAtMs: 1 },
    { isSecret: false },
  );
  store.putValue("cluster", Buffer.from("this one"));
  store.close();
  return { pods, maps };
}

describe("a start", () => {
  const files: { readonly what: string; readonly spoil: (path: string) => void }[] = [
    {
      what: "text",
      spoil: (path) => writeFileSync(path, "this is no database at all, only a line of text that somebody wrote"),
    },
    { what: "zeroes", spoil: (path) => writeFileSync(path, new Uint8Array(8_192)) },
    { what: "a zeroed header", spoil: (path) => overwrite(path, 0, new Uint8Array(100)) },
    { what: "half of the file", spoil: (path) => truncateSync(path, Math.floor(statSync(path).size / 2)) },
    { what: "less than a page", spoil: (path) => truncateSync(path, 700) },
    { what: "random bytes", spoil: (path) => writeFileSync(path, crypto.getRandomValues(new Uint8Array(20_000))) },
    { what: "a folder", spoil: (path) => (rmSync(path), mkdirSync(path)) },
    {
      what: "another program's database",
      spoil: (path) => {
        rmSync(path);
        const other = new Database(path, { create: true });
        other.run("CREATE TABLE scopes (mine TEXT)");
        other.close();
      },
    },
  ];
  for (const { what, spoil } of files) {
    test(`on ${what} succeeds, sets it aside and keeps on`, () => {
      using bench = new Bench();
      filled(bench);
      spoil(bench.file);
      const store = bench.open();
      expect(store.status()).toMatchObject({ mode: "disk", quarantined: 1 });
      expect(aside(bench).filter((name) => !/-(wal|shm)$/.test(name))).toEqual([
        expect.stringMatching(/^cache\.db\.damaged-2023-/),
      ]);
      const pods = listedScope(store, numbered(5), 900);
      store.close();
      const again = bench.open();
      expect(contentOf(keptIn(again, pods))).toHaveLength(5);
      expect(again.status().quarantined).toBe(1);
    });
  }

  test("keeps the two newest of the files set aside", () => {
    using bench = new Bench();
    for (let n = 0; n < 4; n++) {
      writeFileSync(bench.file, `not a database, number ${n}`);
      bench.open().close();
      bench.clock.pass(60_000);
    }
    const kept = aside(bench);
    expect(kept.map((name) => readFileSync(join(bench.dir, name), "utf8"))).toEqual([
      "not a database, number 2",
      "not a database, number 3",
    ]);
  });

  test("on a newer schema leaves that file untouched beside it", () => {
    using bench = new Bench();
    filled(bench);
    bench.spoil("PRAGMA user_version = 7");
    const before = readFileSync(bench.file);
    const store = bench.open();
    expect(store.copies()).toEqual([]);
    expect(store.status()).toMatchObject({ mode: "disk", quarantined: 0 });
    expect(bench.warnings).toEqual(["database set aside"]);
    expect(readFileSync(join(bench.dir, "cache.db.schema-7")).equals(before)).toBe(true);
    store.close();
    // The newer program comes back: its file can be put back by hand.
    copyFileSync(join(bench.dir, "cache.db.schema-7"), bench.file);
    bench.spoil(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    expect(bench.open().copies()).toHaveLength(2);
  });

  test("after a rollback takes up the copy from before the upgrade, and the newer file waits beside it", () => {
    using bench = new Bench();
    const { pods } = filled(bench);
    // As the newer program leaves it (test/store/sums.test.ts), and then its own format.
    copyFileSync(bench.file, `${bench.file}.schema-${SCHEMA_VERSION}`);
    bench.spoil(`PRAGMA user_version = ${SCHEMA_VERSION + 1}`);
    const newer = readFileSync(bench.file);
    const store = bench.open();
    expect(contentOf(keptIn(store, pods))).toHaveLength(400);
    expect(store.status()).toMatchObject({ mode: "disk", quarantined: 0 });
    expect(aside(bench)).toEqual([`cache.db.schema-${SCHEMA_VERSION + 1}`]);
    expect(readFileSync(`${bench.file}.schema-${SCHEMA_VERSION + 1}`).equals(newer)).toBe(true);
  });

  test("keeps two files of other formats, and none that is older than a month", () => {
    using bench = new Bench();
    filled(bench);
    for (const version of [7, 8, 9]) {
      writeFileSync(`${bench.file}.schema-${version}`, "");
      utimesSync(`${bench.file}.schema-${version}`, version, bench.clock.nowMs() / 1_000 - version);
    }
    bench.open().close();
    expect(aside(bench)).toEqual(["cache.db.schema-7", "cache.db.schema-8"]);
    bench.clock.pass(31 * 86_400_000);
    bench.open().close();
    expect(aside(bench)).toEqual([]);
  });

  test("after random pages were overwritten serves nothing that was not written", () => {
    for (let seed = 1; seed <= 25; seed++) {
      using bench = new Bench();
      const { pods, maps } = filled(bench);
      const good = new Map(
        numbered(400, 1, "x".repeat(300)).map((one) => [one.meta.name, Buffer.from(one.bytes).toString()]),
      );
      const pages = statSync(bench.file).size / 4_096;
      const random = (n: number, salt: number) => Bun.hash.xxHash32(`${seed}/${salt}`) % n;
      // From 512 torn bytes to three whole pages; the first page is another test's.
      for (let n = 0; n <= seed % 3; n++) {
        const noise = Buffer.alloc(seed % 2 === 0 ? 512 : 4_096);
        for (let at = 0; at < noise.length; at += 4) noise.writeUInt32LE(Bun.hash.xxHash32(`${seed} ${n} ${at}`), at);
        overwrite(bench.file, 4_096 * (1 + random(pages - 1, n)), seed % 5 === 0 ? noise.fill(0) : noise);
      }
      const store = bench.open();
      expect(store.status().mode).toBe("disk");
      for (const copy of [pods, maps]) {
        using snapshot = keptIn(store, copy).snapshot();
        let read = 0;
        try {
          for (const one of snapshot?.items() ?? []) {
            read++;
            if (copy === pods) expect(Buffer.from(one.bytes).toString()).toBe(good.get(one.meta.name)!);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(ScopeDamagedError);
          continue;
        }
        if (snapshot !== undefined) expect(read).toBe(copy === pods ? 400 : 1);
      }
      list(store.openCopy(PODS, 1), numbered(7), 2_000);
      expect(contentOf(store.openCopy(PODS, 1))).toHaveLength(7);
      expect(store.verify().damaged).toBe(0);
    }
  }, 60_000);

  test("saves the scopes that the damage did not hit", () => {
    using bench = new Bench();
    const { pods, maps } = filled(bench);
    // The check at the start fails on an index of answers; no scope is hurt.
    const page = rootPage(bench, "responses_by_body");
    overwrite(bench.file, (page - 1) * 4_096, new Uint8Array(4_096));
    const store = bench.open();
    expect(store.status()).toMatchObject({ mode: "disk", quarantined: 1 });
    expect([contentOf(keptIn(store, pods))?.length, contentOf(keptIn(store, maps))]).toEqual([400, ["shop/map@1"]]);
    expect(keptIn(store, pods).listed).toMatchObject({ resourceVersion: "100" });
    expect(Buffer.from(store.getValue("cluster")!).toString()).toBe("this one");
    expect(store.getResponse({ principal: "p", target: "/version", accept: "a" })).toBeDefined();
    store.close();
    expect(contentOf(keptIn(bench.open(), pods))).toHaveLength(400);
  });

  test("on an index that hides a row saves the rows, and every one is found", () => {
    using bench = new Bench();
    const { pods } = filled(bench);
    const [{ hash }] = bench.look<{ hash: number }>("SELECT hash FROM objects WHERE key = 'shop/pod-00007'") as [
      { hash: number },
    ];
    const needle = Buffer.alloc(4);
    needle.writeInt32BE(hash);
    const file = readFileSync(bench.file);
    // The table comes first in the file and holds the hash as well: the index entry is the last.
    overwrite(bench.file, file.lastIndexOf(needle), Buffer.of(needle[0]! ^ 1));
    const store = bench.open();
    expect(keptIn(store, pods).get("shop", "pod-00007")?.meta.resourceVersion).toBe("8");
    expect(contentOf(keptIn(store, pods))).toHaveLength(400);
    expect(store.status()).toMatchObject({ mode: "disk", quarantined: 1 });
  });

  function rootPage(bench: Bench, name: string): number {
    return bench.look<{ rootpage: number }>(`SELECT rootpage FROM sqlite_schema WHERE name = '${name}'`)[0]!.rootpage;
  }
});

describe("damage in a running store", () => {
  const rows: { readonly what: string; readonly statement: string; readonly checked?: number }[] = [
    { what: "a value", statement: "UPDATE objects SET value = x'00' WHERE key = 'shop/pod-00003'" },
    { what: "a key", statement: "UPDATE objects SET key = 'shop/pod-99999' WHERE key = 'shop/pod-00003'" },
    { what: "a resourceVersion", statement: "UPDATE objects SET resource_version = '9' WHERE key = 'shop/pod-00003'" },
    { what: "a uid", statement: "UPDATE objects SET uid = 'other' WHERE key = 'shop/pod-00003'" },
    { what: "a size", statement: "UPDATE objects SET size = 1 WHERE key = 'shop/pod-00003'" },
    { what: "a packing", statement: "UPDATE objects SET packing = 0 WHERE key = 'shop/pod-00003'" },
    {
      what: "a row exchanged for another whole one",
      statement:
        "UPDATE objects SET (value, checksum, resource_version, content, size) = (SELECT value, checksum, resource_version, content, size FROM objects WHERE key = 'shop/pod-00004') WHERE key = 'shop/pod-00003'",
    },
    { what: "the dictionary", statement: "UPDATE dictionaries SET value = zeroblob(300)" },
  ];
  for (const { what, statement } of rows) {
    test(`in ${what} costs the scope its listed state, and is counted`, () => {
      using bench = new Bench();
      const { pods, maps } = filled(bench);
      bench.spoil(`${statement}${what === "the dictionary" ? " WHERE rows = 1" : ""}`);
      const store = bench.open();
      expect(store.verify().damaged).toBeGreaterThan(0);
      expect(keptIn(store, pods).listed).toBeUndefined();
      expect(contentOf(keptIn(store, maps))).toHaveLength(1);
      const { quarantined } = store.status();
      expect(quarantined).toBeGreaterThan(0);
      expect(bench.look("SELECT what FROM quarantine").length).toBeGreaterThan(0);
      expect(store.verify().damaged).toBe(0);
      store.close();
      expect(bench.open().status().quarantined).toBe(quarantined);
    });
  }

  test("a row that vanished without a trace is missed at the start", () => {
    using bench = new Bench();
    const { pods } = filled(bench);
    bench.spoil("DELETE FROM objects WHERE key = 'shop/pod-00003'");
    const store = bench.open();
    expect(keptIn(store, pods).listed).toBeUndefined();
    expect(store.status().quarantined).toBe(1);
  });

  test("a row gone back to an older whole state is missed when it is listed", () => {
    using bench = new Bench();
    const { pods } = filled(bench);
    const [old] = bench.look<{ checksum: number }>("SELECT checksum FROM objects WHERE key = 'shop/pod-00003'");
    copyFileSync(bench.file, `${bench.file}.older`);
    const store = bench.open();
    keptIn(store, pods).put(item("pod-00003", 500), "500", 1);
    store.close();
    bench.spoil(
      `ATTACH '${bench.file}.older' AS older`,
      "UPDATE objects SET (uid, resource_version, size, packing, content, checksum, value) = (SELECT uid, resource_version, size, packing, content, checksum, value FROM older.objects WHERE key = 'shop/pod-00003') WHERE key = 'shop/pod-00003'",
    );
    expect(bench.look("SELECT checksum FROM objects WHERE key = 'shop/pod-00003'")).toEqual([old]);
    const again = bench.open();
    using snapshot = keptIn(again, pods).snapshot()!;
    expect(() => [...snapshot.items()]).toThrow(ScopeDamagedError);
    expect(keptIn(again, pods).listed).toBeUndefined();
  });

  for (const { what, statement } of [
    { what: "identity", statement: "UPDATE scopes SET identity = replace(identity, 'edge-1', 'edge-9') WHERE id = 1" },
    { what: "head", statement: "UPDATE scopes SET head = replace(head, '\"rows\":1', '\"rows\":2') WHERE id = 1" },
    { what: "resourceVersion", statement: "UPDATE marks SET resource_version = '999' WHERE scope = 1" },
    { what: "marks", statement: "DELETE FROM marks WHERE scope = 1" },
  ]) {
    test(`a scope whose ${what} cannot be believed is forgotten`, () => {
      using bench = new Bench();
      filled(bench);
      bench.spoil(statement);
      const store = bench.open();
      expect(store.copies().map(({ identity }) => identity.resource)).toEqual(["configmaps"]);
      expect(store.status()).toMatchObject({ quarantined: 1, objects: 1 });
    });
  }

  test("a list that is compared with a damaged row does not become the scope's content", () => {
    using bench = new Bench();
    const { pods } = filled(bench);
    bench.spoil("UPDATE objects SET value = x'00' WHERE key = 'shop/pod-00003'");
    const store = bench.open();
    expect(() => list(keptIn(store, pods), numbered(3, 5_000), 9_000)).toThrow(ScopeDamagedError);
    expect(keptIn(store, pods).listed).toBeUndefined();
    expect(list(keptIn(store, pods), numbered(3, 5_000), 9_000)).toEqual([]);
    expect(contentOf(keptIn(store, pods))).toHaveLength(3);
    expect(store.status().objects).toBe(4);
  });

  test("a file that was removed is noticed within a minute, and is there again with everything", () => {
    using bench = new Bench();
    const { pods } = filled(bench);
    const store = bench.open();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(bench.file + suffix, { force: true });
    rmSync(join(bench.dir, "keys"), { recursive: true });
    bench.clock.pass(61_000);
    keptIn(store, pods).put(item("new", 600), "600", 1);
    expect(existsSync(bench.file)).toBe(true);
    expect(store.status()).toMatchObject({ mode: "disk", objects: 402, sealing: "file" });
    expect(contentOf(keptIn(store, pods))).toHaveLength(401);
    store.close();
    expect(contentOf(keptIn(bench.open(), pods))).toHaveLength(401);
  });

  test("tables that went away under it are replaced, and nobody is thrown at", () => {
    using bench = new Bench();
    const { pods, maps } = filled(bench);
    const store = bench.open();
    bench.spoil("DROP TABLE objects");
    keptIn(store, pods).put(item("new", 600), "600", 1);
    bench.clock.pass(1_000);
    expect(keptIn(store, pods).get("shop", "pod-00001")).toBeUndefined();
    expect(keptIn(store, maps).snapshot()).toBeUndefined();
    expect(store.status()).toMatchObject({ scopes: 2, objects: 0 });
    list(keptIn(store, pods), numbered(5), 700);
    expect(contentOf(keptIn(store, pods))).toHaveLength(5);
  });
});

describe("a migration", () => {
  test("brings an older file up step by step, and a step that fails leaves the version before it", () => {
    const database = new Database(":memory:");
    const steps = [
      "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1)",
      "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 5",
    ];
    migrate(database, steps.slice(0, 1));
    expect(pragma(database, "user_version")).toBe(1);
    migrate(database, steps);
    expect(database.query("SELECT x, y FROM a").all()).toEqual([{ x: 1, y: 5 }]);
    expect(() =>
      migrate(database, [...steps, "INSERT INTO a VALUES (2, 2); CREATE TABLE a (again INTEGER)"]),
    ).toThrow();
    expect(pragma(database, "user_version")).toBe(2);
    expect(database.query("SELECT count(*) AS n FROM a").get()).toEqual({ n: 1 });
    migrate(database, steps);
    expect(pragma(database, "user_version")).toBe(2);
  });

  test("of an empty file makes the present one, marked as ours", () => {
    using bench = new Bench();
    bench.open().close();
    expect(bench.look("PRAGMA user_version")).toEqual([{ user_version: SCHEMA_VERSION }]);
    expect(bench.look("PRAGMA application_id")).toEqual([{ application_id: APPLICATION_ID }]);
    expect(bench.look("PRAGMA journal_mode")).toEqual([{ journal_mode: "wal" }]);
  });
});
