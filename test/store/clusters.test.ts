import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import type { SqliteStore } from "../../src/store/store.ts";
import { Bench, PODS, SECRETS, contentOf, filesUnder, item, keptIn, listedScope } from "./support.ts";

const KEY = { principal: PODS.principal, target: "/version", accept: "json" };

/** A CA's fingerprint as a certificate says it. */
const ca = (letter: string) => Array.from({ length: 32 }, () => letter.repeat(2)).join(":");
const [A, B] = [[ca("A")], [ca("B")]];

/** Copies, a sealed one, an answer, values: all that a cluster leaves behind. */
function fill(store: SqliteStore, mark: string): void {
  listedScope(store, [item(`pod-of-${mark}`, 1)], 100, PODS);
  listedScope(store, [item(`secret-of-${mark}`, 1)], 100, SECRETS);
  store.putResponse(KEY, { status: 200, headers: {}, body: Buffer.from(mark), storedAtMs: 1 }, { isSecret: false });
  store.putValue(`token/${mark}`, Buffer.from(mark), { isSecret: true });
  store.flush();
}

function found(store: SqliteStore) {
  const answer = store.getResponse(KEY);
  return {
    copies: store.copies().flatMap((copy) => contentOf(copy) ?? []),
    answer: answer === undefined ? undefined : Buffer.from(answer.body).toString(),
    values: store.valueNames("token/"),
  };
}

const of = (mark: string) => ({
  copies: [`shop/pod-of-${mark}@1`, `shop/secret-of-${mark}@1`],
  answer: mark,
  values: [`token/${mark}`],
});
const NOTHING = { copies: [], answer: undefined, values: [] };

function held(dir: string): ReadonlyMap<string, string> {
  const files = filesUnder(dir).filter((path) => /cache\.db(-wal)?$/.test(path));
  return new Map(files.map((path) => [path, readFileSync(path).toString("base64")]));
}

/** A folder that has been cluster A's. */
function folderOfA(): Bench {
  const bench = new Bench();
  const store = bench.open({ cluster: A });
  store.proven(A);
  fill(store, "A");
  store.close();
  return bench;
}

describe("a state folder of another cluster", () => {
  test("is neither served nor touched before an API server of the configured one has answered", () => {
    using bench = folderOfA();
    const before = held(bench.dir);
    const store = bench.open({ cluster: B });
    expect(store.isOthers).toBe(true);
    expect(found(store)).toEqual(NOTHING);
    expect(store.status()).toMatchObject({ mode: "memory", reason: "state folder of another cluster" });
    fill(store, "B");
    store.settle();
    bench.clock.pass(600_000);
    expect(found(store)).toEqual(of("B"));
    store.close();
    expect(held(bench.dir)).toEqual(before);
    // A CA that was mistyped has cost nothing.
    expect(found(bench.open({ cluster: A }))).toEqual(of("A"));
  });

  test("is set aside whole once that has happened, and taken up again when its cluster comes back", () => {
    using bench = folderOfA();
    const store = bench.open({ cluster: B });
    fill(store, "B");
    store.proven(B);
    expect(store.isOthers).toBe(false);
    expect(store.status().mode).toBe("disk");
    expect(found(store)).toEqual(of("B"));
    store.close();
    expect(readdirSync(join(bench.dir, "other-clusters"))).toEqual(["A".repeat(16)]);
    const again = bench.open({ cluster: B });
    expect(again.isOthers).toBe(false);
    expect(found(again)).toEqual(of("B"));
    again.close();
    const back = bench.open({ cluster: A });
    back.proven(A);
    expect(found(back)).toEqual(of("A"));
    keptIn(back, { identity: PODS }).put(item("later", 101), "101", 1);
    back.close();
    expect(readdirSync(join(bench.dir, "other-clusters"))).toEqual(["B".repeat(16)]);
    expect(found(bench.open({ cluster: A })).copies).toContain("shop/later@101");
  });

  test("leaves what was set aside for the configured one to be served while cut, and stays in its place itself", () => {
    using bench = folderOfA();
    const b = bench.open({ cluster: B });
    b.proven(B);
    fill(b, "B");
    b.close();
    const before = readFileSync(bench.file);
    const back = bench.open({ cluster: A });
    expect(back.isOthers).toBe(true);
    expect(back.status().mode).toBe("disk");
    expect(found(back)).toEqual(of("A"));
    keptIn(back, { identity: PODS }).put(item("later", 101), "101", 1);
    back.close();
    expect(readFileSync(bench.file).equals(before)).toBe(true);
    const again = bench.open({ cluster: A });
    const copy = keptIn(again, { identity: PODS });
    again.proven(A);
    // The handle outlives the move.
    expect(contentOf(copy)).toEqual(["shop/later@101", "shop/pod-of-A@1"]);
    copy.put(item("last", 102), "102", 1);
    again.close();
    expect(found(bench.open({ cluster: A })).copies).toContain("shop/last@102");
  });

  test("is the same cluster's while its CA is changed with both side by side", () => {
    using bench = folderOfA();
    for (const cluster of [[...A, ...B], B]) {
      const store = bench.open({ cluster });
      expect(store.isOthers).toBe(false);
      expect(found(store)).toEqual(of("A"));
      store.proven(cluster);
      store.close();
    }
    expect(bench.open({ cluster: A }).isOthers).toBe(true);
  });

  test("of which several were set aside keeps the newest three", () => {
    using bench = folderOfA();
    for (const letter of ["B", "C", "D", "E"]) {
      const store = bench.open({ cluster: [ca(letter)] });
      store.proven([ca(letter)]);
      fill(store, letter);
      store.close();
    }
    expect(readdirSync(join(bench.dir, "other-clusters")).sort()).toEqual(["B", "C", "D"].map((one) => one.repeat(16)));
    expect(found(bench.open({ cluster: [ca("C")] }))).toEqual(of("C"));
  });

  test("half moved by a power cut is whole at the next start", () => {
    using bench = folderOfA();
    const aside = join(bench.dir, "other-clusters", "A".repeat(16));
    mkdirSync(aside, { recursive: true });
    renameSync(bench.file, join(aside, "cache.db"));
    const store = bench.open({ cluster: A });
    expect(store.isOthers).toBe(false);
    expect(found(store)).toEqual(of("A"));
    expect(bench.look("SELECT count(*) AS n FROM scopes")).toEqual([{ n: 2 }]);
  });
});
