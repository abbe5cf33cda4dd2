import { expect, test } from "bun:test";
import { isLocalVersion, LocalVersions } from "../../src/cache/edits.ts";
import { compareResourceVersions } from "../../src/kube/resource-version.ts";
import { MemoryStore } from "../support/memory-store.ts";

test("more edits than a generation has numbers begin the next one: a number is given out once, over restarts too", () => {
  const store = new MemoryStore();
  const given: string[] = [];
  for (let run = 0; run < 3; run++) {
    const versions = new LocalVersions(store, 4);
    for (let edit = 0; edit < 10; edit++) given.push(versions.next());
  }
  expect(new Set(given).size).toBe(30);
  expect([...given].sort(compareResourceVersions)).toEqual(given);
  expect(given.every((version) => isLocalVersion(version) && Number.isSafeInteger(Number(version)))).toBe(true);
});

test("an edit from before a return is void, also from the last of several generations of one cut", () => {
  const store = new MemoryStore();
  const versions = new LocalVersions(store, 4);
  const before = Array.from({ length: 10 }, () => versions.next());
  versions.voidAll();
  const after = versions.next();
  expect(before.map((version) => versions.isVoid(version))).toEqual(before.map(() => true));
  expect(versions.isVoid(after)).toBe(false);
  expect(new LocalVersions(store, 4).isVoid(before.at(-1)!)).toBe(true);
});
