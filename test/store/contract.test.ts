/**
 * What every store keeps to: the one on SQLite, and the doubles that tests and
 * the simulation use in its place. A double that is kinder than the real one
 * hides faults.
 */

import { describe, expect, test } from "bun:test";
import type { Copy, Store } from "../../src/store/contract.ts";
import { CopyDroppedError } from "../../src/store/errors.ts";
import { MemoryDisk } from "../simulation/disk.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { Bench, HandClock, PODS, SECRETS, SHAPE, contentOf, item, list, listedScope } from "./support.ts";

const AT = { shape: SHAPE, contentType: "application/json", nowMs: 1 };

const stores: readonly { readonly name: string; readonly open: () => { readonly store: Store } & Disposable }[] = [
  {
    name: "on SQLite",
    open: () => {
      const bench = new Bench();
      return { store: bench.open(), [Symbol.dispose]: () => bench[Symbol.dispose]() };
    },
  },
  { name: "in memory", open: () => ({ store: new MemoryStore(), [Symbol.dispose]() {} }) },
  {
    name: "of the simulation",
    open: () => ({ store: new MemoryDisk().open(new HandClock()), [Symbol.dispose]() {} }),
  },
];

/** Every way to use a copy. */
const uses: readonly { readonly name: string; readonly use: (copy: Copy) => unknown }[] = [
  { name: "beginList", use: (copy) => copy.beginList() },
  { name: "put", use: (copy) => copy.put(item("late", 900), "900", 1) },
  { name: "delete", use: (copy) => copy.delete(item("a", 900), "900", 1) },
  { name: "touch", use: (copy) => copy.touch({ resourceVersion: "900", lastUsedMs: 900 }) },
  { name: "get", use: (copy) => copy.get("shop", "a") },
  { name: "snapshot", use: (copy) => copy.snapshot() },
  { name: "size", use: (copy) => copy.size() },
  { name: "clear", use: (copy) => copy.clear() },
];

for (const { name, open } of stores)
  describe(`a store ${name}`, () => {
    test("hands out one handle for one identity, with nothing in it before a list", () => {
      using opened = open();
      const { store } = opened;
      const copy = store.openCopy(PODS, 5);
      expect(store.openCopy({ ...PODS }, 9)).toBe(copy);
      expect(store.openCopy({ ...PODS, labelSelector: "app=web" }, 9)).not.toBe(copy);
      expect(store.copies()[0]).toBe(copy);
      expect(copy).toMatchObject({ identity: PODS, isDropped: false, lastUsedMs: 5 });
      copy.put(item("a", 7), "7", 1);
      expect(copy.listed).toBeUndefined();
      expect(copy.snapshot()).toBeUndefined();
      expect(copy.get("shop", "a")).toBeUndefined();
      expect(copy.size()).toMatchObject({ items: 0, bytes: 0 });
    });

    test("keeps a list and the events after it, and moves its state with them", () => {
      using opened = open();
      const copy = listedScope(opened.store, [item("b", 2), item("a", 1)], 100);
      expect(contentOf(copy)).toEqual(["shop/a@1", "shop/b@2"]);
      copy.put(item("c", 101), "101", 7);
      copy.delete(item("b", 102), "102", 8);
      expect(contentOf(copy)).toEqual(["shop/a@1", "shop/c@101"]);
      expect(copy.get("shop", "b")).toBeUndefined();
      expect(copy.get("shop", "c")?.meta.resourceVersion).toBe("101");
      expect(copy.listed).toMatchObject({
        resourceVersion: "102",
        changedAt: "102",
        epoch: "100",
        isPartlyTold: false,
        lastContactMs: 8,
      });
      copy.touch({ resourceVersion: "150", lastContactMs: 9, lastUsedMs: 10 });
      expect(copy.listed).toMatchObject({ resourceVersion: "150", changedAt: "102", lastContactMs: 9 });
      expect(copy.lastUsedMs).toBe(10);
      expect(copy.isWithheld).toBe(false);
      copy.touch({ isWithheld: true });
      expect(copy.isWithheld).toBe(true);
      copy.touch({ shownTo: "160" });
      expect(copy.listed?.shownTo).toBe("160");
      list(copy, [item("a", 1)], 200);
      expect([copy.isWithheld, copy.listed?.shownTo]).toEqual([false, undefined]);
    });

    test("reports how a later list differs, in order, and a first one not at all", () => {
      using opened = open();
      const copy = opened.store.openCopy(PODS, 1);
      expect(list(copy, [item("same", 1), item("moved", 2), item("gone", 3), item("other", 4)], 100)).toEqual([]);
      expect(
        list(copy, [item("new", 203), item("same", 1), item("moved", 201), item("other", 202, { uid: "x" })], 300),
      ).toEqual(["MODIFIED moved@201", "DELETED other@4", "ADDED other@202", "ADDED new@203", "DELETED gone@3"]);
      expect(copy.listed).toMatchObject({ resourceVersion: "300", epoch: "300" });
    });

    test("lets an event stand that is newer than the list under way", () => {
      using opened = open();
      const copy = listedScope(opened.store, [item("a", 1), item("b", 2)], 100);
      const writer = copy.beginList();
      copy.put(item("a", 205), "205", 1);
      copy.put(item("b", 150), "150", 1);
      writer.add(item("a", 110));
      writer.add(item("b", 190));
      writer.commit({ ...AT, resourceVersion: "200" }, () => {});
      expect(contentOf(copy)).toEqual(["shop/a@205", "shop/b@190"]);
      expect(copy.listed).toMatchObject({ resourceVersion: "205" });
    });

    test("clears a copy that lives on, to be listed anew", () => {
      using opened = open();
      const { store } = opened;
      const copy = listedScope(store, [item("a", 1)], 100);
      const underWay = copy.beginList();
      copy.clear();
      expect(copy).toMatchObject({ listed: undefined, isDropped: false });
      expect([copy.snapshot(), copy.get("shop", "a")]).toEqual([undefined, undefined]);
      expect(copy.size()).toMatchObject({ items: 0 });
      copy.put(item("b", 101), "101", 1);
      underWay.abort();
      expect(store.openCopy(PODS, 1)).toBe(copy);
      expect(list(copy, [item("c", 200)], 200)).toEqual([]);
      expect(contentOf(copy)).toEqual(["shop/c@200"]);
    });

    test("takes nothing from a list that was aborted, and commits one only once", () => {
      using opened = open();
      const copy = listedScope(opened.store, [item("a", 1)], 100);
      const aborted = copy.beginList();
      aborted.add(item("b", 2));
      aborted.abort();
      const committed = copy.beginList();
      committed.add(item("c", 200));
      committed.commit({ ...AT, resourceVersion: "200" }, () => {});
      expect(() => committed.commit({ ...AT, resourceVersion: "300" }, () => {})).toThrow(RangeError);
      expect(contentOf(copy)).toEqual(["shop/c@200"]);
    });

    for (const { name: how, end } of [
      { name: "dropped", end: (copy: Copy) => copy.drop() },
      {
        name: "forgotten with its caller's right",
        end: (_: Copy, store: Store) => store.forget(PODS.principal, () => true),
      },
    ])
      for (const { name: what, use } of uses)
        test(`throws at ${what} of a copy that was ${how}, and writes nothing`, () => {
          using opened = open();
          const { store } = opened;
          const copy = listedScope(store, [item("a", 1)], 100);
          end(copy, store);
          const next = listedScope(store, [item("z", 500)], 500);
          expect(() => use(copy)).toThrow(CopyDroppedError);
          expect(copy).toMatchObject({ isDropped: true, listed: undefined, identity: PODS });
          expect(next).not.toBe(copy);
          expect(store.copies()).toEqual([next]);
          expect(contentOf(next)).toEqual(["shop/z@500"]);
          expect(next.listed).toMatchObject({ resourceVersion: "500" });
        });

    test("throws at the list of a dropped copy, whose rows no later copy of the same identity sees", () => {
      using opened = open();
      const { store } = opened;
      const copy = store.openCopy(PODS, 1);
      const writer = copy.beginList();
      for (let n = 0; n < 250; n++) writer.add(item(`old-${n}`, n + 1));
      copy.drop();
      copy.drop();
      const next = store.openCopy(PODS, 1);
      const theirs = next.beginList();
      theirs.add(item("new", 500));
      expect(() => writer.add(item("old", 400))).toThrow(CopyDroppedError);
      expect(() => writer.commit({ ...AT, resourceVersion: "400" }, () => {})).toThrow(CopyDroppedError);
      writer.abort();
      expect(next.listed).toBeUndefined();
      theirs.commit({ ...AT, resourceVersion: "500" }, () => {});
      expect(contentOf(next)).toEqual(["shop/new@500"]);
    });

    test("drops what matches of one caller, and no other's", () => {
      using opened = open();
      const { store } = opened;
      const [pods, secrets] = [listedScope(store, [item("a", 1)]), listedScope(store, [item("s", 1)], 5, SECRETS)];
      const other = listedScope(store, [item("s", 1)], 5, { ...SECRETS, principal: "system:node:edge-2" });
      store.forget(PODS.principal, ({ resource }) => resource === "secrets");
      expect([pods, secrets, other].map(({ isDropped }) => isDropped)).toEqual([false, true, false]);
      expect(contentOf(other)).toEqual(["shop/s@1"]);
    });
  });
