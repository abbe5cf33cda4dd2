import { describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Copy, identityText } from "../../src/store/contract.ts";
import { salvage } from "../../src/store/salvage.ts";
import { SCHEMA_VERSION, migrate } from "../../src/store/schema.ts";
import { Sealer } from "../../src/store/seal.ts";
import type { SqliteStore } from "../../src/store/store.ts";
import { Bench, PODS, SECRETS, contentOf, item, keptIn, listedScope, numbered } from "./support.ts";

const THIEF = { ...PODS, principal: "serviceaccount:shop:thief" };
const KEY = { principal: PODS.principal, target: "/secret", accept: "a" };

/** The sum of before version 3, which anybody can make. */
function plainSum(...fields: readonly (string | number | null)[]): number {
  return Bun.hash.xxHash32(JSON.stringify(fields)) | 0;
}

/** A folder with rows of the node's and of another caller. */
function filled(bench: Bench): void {
  const store = bench.open();
  listedScope(store, numbered(5), 100, PODS);
  listedScope(store, [item("s", 1, { text: "for the node alone" })], 100, SECRETS);
  listedScope(store, [item("own", 1)], 100, THIEF);
  listedScope(store, [item("own", 1)], 100, { ...THIEF, resource: "secrets", fieldSelector: "" });
  store.putResponse(KEY, { status: 200, headers: {}, body: Buffer.from("{}"), storedAtMs: 1 }, { isSecret: true });
  store.putValue("one", Buffer.from("1"));
  store.putValue("two", Buffer.from("2"));
  store.close();
}

function served(store: SqliteStore, { identity }: Pick<Copy, "identity">): string[] | undefined {
  const copy = keptIn(store, { identity });
  try {
    return contentOf(copy);
  } catch {
    return undefined;
  }
}

describe("a row that was put under another name", () => {
  test("by its copy's caller is not served to the new one, whatever sum anybody can make of it", () => {
    for (const resum of [false, true]) {
      using bench = new Bench();
      filled(bench);
      const database = new Database(bench.file);
      const { id, head } = database.query("SELECT id, head FROM scopes WHERE identity = ?").get(identityText(PODS)) as {
        id: number;
        head: string;
      };
      database.query("DELETE FROM scopes WHERE identity = ?").run(identityText(THIEF));
      database.query("UPDATE scopes SET identity = ? WHERE id = ?").run(identityText(THIEF), id);
      if (resum)
        database.query("UPDATE scopes SET checksum = ? WHERE id = ?").run(plainSum(id, identityText(THIEF), head), id);
      database.close();
      const store = bench.open();
      expect(served(store, { identity: THIEF })).toBeUndefined();
      expect(served(store, { identity: PODS })).toBeUndefined();
      expect(store.status().quarantined).toBeGreaterThan(0);
    }
  });

  for (const { name, from, to } of [
    { name: "a pod", from: PODS, to: THIEF },
    { name: "a Secret", from: SECRETS, to: { ...THIEF, resource: "secrets", fieldSelector: "" } },
  ])
    test(`by the number of its rows is not served: ${name} of another caller's`, () => {
      using bench = new Bench();
      filled(bench);
      const database = new Database(bench.file);
      const head = (identity: typeof PODS) =>
        (database.query("SELECT head FROM scopes WHERE identity = ?").get(identityText(identity)) as { head: string })
          .head;
      const [theirs, own] = [from, to].map((identity) => (JSON.parse(head(identity)) as { rows: number }).rows);
      // One row for one row: number and sum stay as they were.
      database.query("DELETE FROM objects WHERE rows = ?").run(own!);
      database
        .query("UPDATE objects SET rows = ? WHERE id = (SELECT id FROM objects WHERE rows = ? ORDER BY id LIMIT 1)")
        .run(own!, theirs!);
      database.query("DELETE FROM dictionaries WHERE rows = ?").run(own!);
      const dictionary = database.query("SELECT value FROM dictionaries WHERE rows = ?").get(theirs!) as {
        value: Uint8Array<ArrayBuffer>;
      } | null;
      if (dictionary !== null)
        database
          .query("INSERT INTO dictionaries (rows, checksum, value) VALUES (?, ?, ?)")
          .run(own!, Bun.hash.xxHash32(dictionary.value, Bun.hash.xxHash32(String(own))) | 0, dictionary.value);
      // Its sum is what anybody can make of it, and so are the marks'.
      const moved = database.query("SELECT * FROM objects WHERE rows = ?").get(own!) as Record<string, never>;
      const fields = ["rows", "key", "uid", "resource_version", "size", "packing", "content"].map(
        (name) => moved[name],
      );
      const seed = Bun.hash.xxHash32(fields.join("\n"));
      database
        .query("UPDATE objects SET checksum = ? WHERE rows = ?")
        .run(Bun.hash.xxHash32(moved["value"]!, seed) | 0, own!);
      database
        .query(
          "UPDATE marks SET digest = (SELECT sum(checksum) FROM objects WHERE rows = ?) WHERE scope = (SELECT id FROM scopes WHERE identity = ?)",
        )
        .run(own!, identityText(to));
      const marks = database
        .query(
          "SELECT scope, resource_version, changed_at, last_contact, last_used, objects, digest FROM marks WHERE scope = (SELECT id FROM scopes WHERE identity = ?)",
        )
        .get(identityText(to)) as Record<string, number>;
      database
        .query("UPDATE marks SET checksum = ? WHERE scope = ?")
        .run(plainSum(...Object.values(marks)), marks["scope"]!);
      database.close();
      expect(served(bench.open(), { identity: to })).toBeUndefined();
    });

  test("by an answer's caller, or by a value's name, is nobody's", () => {
    using bench = new Bench();
    filled(bench);
    bench.spoil(
      "UPDATE responses SET principal = 'serviceaccount:shop:thief'",
      "UPDATE kept_values SET value = (SELECT value FROM kept_values WHERE name = 'two'), checksum = (SELECT checksum FROM kept_values WHERE name = 'two') WHERE name = 'one'",
    );
    const store = bench.open();
    expect(store.getResponse({ ...KEY, principal: THIEF.principal })).toBeUndefined();
    expect(store.getValue("one")).toBeUndefined();
    expect(store.getValue("two")).toBeDefined();
  });
});

describe("a file of another sealing key", () => {
  const credential = (dir: string, fill: number) => {
    const path = join(dir, `credentials-${fill}`);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, "holdfast-seal-key"), new Uint8Array(32).fill(fill));
    return path;
  };
  const open = (bench: Bench, credentials: string) => {
    const before = process.env["CREDENTIALS_DIRECTORY"];
    process.env["CREDENTIALS_DIRECTORY"] = credentials;
    try {
      return bench.open();
    } finally {
      if (before === undefined) delete process.env["CREDENTIALS_DIRECTORY"];
      else process.env["CREDENTIALS_DIRECTORY"] = before;
    }
  };

  test("that is a credential is believed in nothing, stays whole beside, and is taken up again with its key", () => {
    using bench = new Bench();
    using outside = new Bench();
    const [one, two] = [credential(outside.dir, 1), credential(outside.dir, 2)];
    const first = open(bench, one);
    listedScope(first, numbered(5), 100, PODS);
    listedScope(first, [item("s", 1)], 100, SECRETS);
    first.close();
    const second = open(bench, two);
    expect(second.copies()).toEqual([]);
    expect(second.status()).toMatchObject({ mode: "disk", quarantined: 0, sealing: "credential" });
    listedScope(second, [item("other", 1)], 100, PODS);
    second.close();
    const again = open(bench, one);
    expect(served(again, { identity: PODS })).toHaveLength(5);
    expect(served(again, { identity: SECRETS })).toEqual(["shop/s@1"]);
    again.close();
    expect(readdirSync(bench.dir).filter((name) => name.includes(".key-") && !/-(wal|shm)$/.test(name))).toHaveLength(
      1,
    );
    expect(served(open(bench, two), { identity: PODS })).toEqual(["shop/other@1"]);
  });

  test("whose key waits beside after a power cut between two renames is there at the next start", () => {
    using bench = new Bench();
    filled(bench);
    const name = new Sealer(readFileSync(join(bench.dir, "keys", "seal.key")), "file").keyName.toString(16);
    renameSync(bench.file, `${bench.file}.key-${name}`);
    expect(served(bench.open(), { identity: PODS })).toHaveLength(5);
  });

  test("that lay in a file and is lost leaves what was not sealed, and a key that comes back finds all", () => {
    using bench = new Bench();
    filled(bench);
    const keys = join(bench.dir, "keys");
    renameSync(keys, `${keys}-away`);
    const store = bench.open();
    expect(served(store, { identity: PODS })).toHaveLength(5);
    expect(served(store, { identity: SECRETS })).toBeUndefined();
    expect(Buffer.from(store.getValue("one")!).toString()).toBe("1");
    store.close();
    rmSync(keys, { recursive: true });
    renameSync(`${keys}-away`, keys);
    expect(served(bench.open(), { identity: SECRETS })).toEqual(["shop/s@1"]);
  });
});

describe("a file of version 2", () => {
  const KEY_OF_2 = new Uint8Array(32).fill(7);
  const recorded = () => Bun.gunzipSync(readFileSync(join(import.meta.dir, "recorded", "version-2.db.gz")));
  const place = (bench: Bench) => {
    mkdirSync(join(bench.dir, "keys"));
    writeFileSync(join(bench.dir, "keys", "seal.key"), KEY_OF_2);
    writeFileSync(bench.file, recorded());
  };
  const MAPS = { ...PODS, resource: "configmaps", labelSelector: "app=web" };

  function expectAll(store: SqliteStore): void {
    expect(store.copies()).toHaveLength(4);
    expect(served(store, { identity: PODS })).toHaveLength(40);
    expect(served(store, { identity: SECRETS })).toEqual(["shop/s-1@1", "shop/s-2@2"]);
    expect(served(store, { identity: MAPS })).toEqual(["shop/map@301"]);
    expect(keptIn(store, { identity: MAPS }).listed).toMatchObject({ isPartlyTold: true, resourceVersion: "310" });
    const bodies = ["/version", "/secret"].map((target) => store.getResponse({ principal: "p", target, accept: "a" })!);
    expect(bodies.map(({ body }) => Buffer.from(body).toString())).toEqual(["{}", "secret body"]);
    expect(["plain", "token"].map((name) => Buffer.from(store.getValue(name)!).toString())).toEqual(["open", "sealed"]);
    expect(store.verify().damaged).toBe(0);
    expect(store.status()).toMatchObject({ mode: "disk", quarantined: 0, objects: 43 });
  }

  test("is taken over whole, sealed rows too, and is bound to its callers from then on", () => {
    using bench = new Bench();
    place(bench);
    const store = bench.open();
    expectAll(store);
    store.close();
    expect(bench.look("PRAGMA user_version")).toEqual([{ user_version: SCHEMA_VERSION }]);
    // For a rollback, whole: the older program reads it as it read its own.
    const former = new Database(`${bench.file}.schema-2`, { readonly: true });
    const before = new Database(":memory:");
    writeFileSync(join(bench.dir, "before.db"), recorded());
    before.run("ATTACH ? AS before", [join(bench.dir, "before.db")]);
    for (const table of ["scopes", "marks", "counts"])
      expect(former.query(`SELECT * FROM ${table}`).all()).toEqual(before.query(`SELECT * FROM before.${table}`).all());
    expect(former.query("PRAGMA user_version").get()).toEqual({ user_version: 2 });
    former.close();
    before.close();
    bench.spoil(`UPDATE scopes SET identity = replace(identity, 'system:node:edge-1', 'thief') WHERE id = 2`);
    expect(served(bench.open(), { identity: SECRETS })).toBeUndefined();
  });

  test("cut off anywhere while it is taken over goes on at the next start", () => {
    using reference = new Bench();
    place(reference);
    reference.open().close();
    // What a crash leaves after N copies: their rows summed anew, the rest and the key's name not yet.
    for (let done = 0; done <= 4; done++) {
      using bench = new Bench();
      place(bench);
      const database = new Database(bench.file);
      migrate(database);
      database.run("ATTACH ? AS done", [reference.file]);
      for (const table of ["scopes", "marks"]) {
        const key = table === "scopes" ? "id" : "scope";
        database.run(`DELETE FROM main.${table} WHERE ${key} <= ${done}`);
        database.run(`INSERT INTO main.${table} SELECT * FROM done.${table} WHERE ${key} <= ${done}`);
      }
      for (const table of ["objects", "dictionaries"]) {
        const rows = `rows IN (SELECT json_extract(head, '$.rows') FROM scopes WHERE id <= ${done})`;
        database.run(`DELETE FROM main.${table} WHERE ${rows}`);
        database.run(`INSERT INTO main.${table} SELECT * FROM done.${table} WHERE ${rows}`);
      }
      database.run("DETACH done");
      database.close();
      expectAll(bench.open());
    }
  });

  test("that is damaged gives up what can be believed of it", () => {
    using bench = new Bench();
    place(bench);
    bench.spoil("UPDATE objects SET value = x'00' WHERE key = 'shop/pod-00003'");
    const database = new Database(":memory:");
    migrate(database);
    const from = new Database(bench.file);
    const saved = salvage(from, database, Number.MAX_SAFE_INTEGER, {
      sealer: new Sealer(KEY_OF_2, "file"),
      isOwn: () => false,
    });
    from.close();
    expect(saved).toMatchObject({ damaged: 1, isFull: false });
    const store = bench.open();
    expect(served(store, { identity: PODS })).toBeUndefined();
    expect(served(store, { identity: SECRETS })).toHaveLength(2);
    expect(store.status().quarantined).toBeGreaterThan(0);
    expect(existsSync(bench.file)).toBe(true);
  });
});

test("a copy that is withheld is so after a crash in the same moment, until a list is committed", () => {
  using bench = new Bench();
  const store = bench.open();
  const copy = listedScope(store, [item("a", 1)]);
  bench.clock.pass(500);
  copy.put(item("b", 101), "101", 7);
  copy.touch({ isWithheld: true });
  const crashed = keptIn(bench.openAfterCrash(), copy);
  expect(crashed.isWithheld).toBe(true);
  listedScope(store, [item("a", 1)], 200);
  expect(copy.isWithheld).toBe(false);
  store.close();
  expect(keptIn(bench.open(), copy).isWithheld).toBe(false);
});

test("up to where clients were shown more than a copy's rows is known after a crash in the same moment, and no row that says so is believed when it was changed", () => {
  using bench = new Bench();
  const store = bench.open();
  const copy = listedScope(store, [item("a", 1)]);
  copy.touch({ shownTo: "160" });
  const crashed = keptIn(bench.openAfterCrash(), copy);
  expect(crashed.listed?.shownTo).toBe("160");
  store.close();
  const database = new Database(bench.file);
  database.run("UPDATE marks SET shown_to = '100'");
  database.close();
  expect(
    bench
      .open()
      .copies()
      .filter(({ listed }) => listed !== undefined),
  ).toEqual([]);
});
