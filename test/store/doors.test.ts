/**
 * What comes back from the disk is outside data: any column of any row may
 * hold anything, and nobody is thrown at for it.
 */

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ScopeDamagedError } from "../../src/store/errors.ts";
import { Bench, PODS, SECRETS, contentOf, item, keptIn, list, listedScope, numbered } from "./support.ts";

const KEYS = ["/open", "/secret"].map((target) => ({ principal: "p", target, accept: "a" }));

function filled(bench: Bench): void {
  const store = bench.open({ cluster: ["AA"] });
  listedScope(store, numbered(80));
  listedScope(store, [item("s", 1)], 100, SECRETS);
  for (const key of KEYS)
    store.putResponse(
      key,
      { status: 200, headers: { etag: "x" }, body: Buffer.from("x".repeat(600)), storedAtMs: 1 },
      { isSecret: key.target === "/secret" },
    );
  store.putValue("plain", Buffer.from("v"));
  store.putValue("sealed", Buffer.from("v"), { isSecret: true });
  store.close();
}

function readAll(bench: Bench, options: Parameters<Bench["open"]>[0]): void {
  const store = bench.open(options);
  for (const copy of store.copies()) {
    copy.get("shop", "pod-00003");
    copy.size();
    try {
      contentOf(copy);
    } catch (error) {
      expect(error).toBeInstanceOf(ScopeDamagedError);
    }
  }
  for (const key of KEYS) store.getResponse(key);
  store.listResponses();
  store.usage();
  for (const name of store.valueNames("")) store.getValue(name);
  store.verify();
  store.status();
  if (options?.isReadOnly !== true) {
    const pods = keptIn(store, { identity: PODS });
    // Damage that is met on the way unlists the copy, and the next list is a first one.
    eventuallyWhole(() => {
      list(pods, numbered(5, 900), 1_000);
      pods.put(item("later", 1_001), "1001", 1);
      return contentOf(pods);
    });
    store.putValue("plain", Buffer.from("again"));
    expect(Buffer.from(store.getValue("plain")!).toString()).toBe("again");
  }
  store.close();
}

function eventuallyWhole(listAndRead: () => readonly string[] | undefined): void {
  for (let attempt = 0; attempt < 3; attempt++)
    try {
      expect(listAndRead()).toHaveLength(6);
      return;
    } catch (error) {
      expect(error).toBeInstanceOf(ScopeDamagedError);
    }
  expect(listAndRead()).toHaveLength(6);
}

const columns = (() => {
  using bench = new Bench();
  filled(bench);
  const database = new Database(bench.file, { readonly: true });
  const tables = database
    .query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    .values() as [string][];
  const found = tables.flatMap(([table]) =>
    (database.query(`SELECT name FROM pragma_table_info('${table}')`).values() as [string][]).map(
      ([column]) => [table, column] as const,
    ),
  );
  database.close();
  return found;
})();

for (const [table, column] of columns)
  test(`anything may stand in ${table}.${column}: the store opens, and serves what can be believed`, () => {
    const hasRowid = !["bodies", "responses", "kept_values", "counts"].includes(table);
    for (const value of ["NULL", "-1", "1e300", "'{\"x\":[]}'", "x'00ff'", "9007199254740993"])
      for (const where of ["", ...(hasRowid ? [` WHERE rowid = (SELECT min(rowid) FROM ${table})`] : [])]) {
        using bench = new Bench();
        filled(bench);
        // Where the table itself does not take it there is nothing to try.
        const isChanged = bench.tryToSpoil(`UPDATE ${table} SET ${column} = ${value}${where}`);
        if (!isChanged) continue;
        readAll(bench, { isReadOnly: true });
        readAll(bench, { cluster: ["AA"] });
        readAll(bench, {});
        // The same where the key of the sums is lost, and nothing vouches for a row.
        rmSync(join(bench.dir, "keys"), { recursive: true });
        readAll(bench, {});
      }
  }, 60_000);
