/**
 * What all scopes together keep of recent events.
 */

import { expect, test } from "bun:test";
import type { Frame } from "../../src/cache/frames.ts";
import { Ring } from "../../src/cache/ring.ts";
import { RingBudget } from "../../src/cache/ring-budget.ts";

const KIB = 1024;

function frame(revision: number, bytes = KIB): Frame {
  const meta = { namespace: "", name: "a", uid: "u", resourceVersion: String(revision) };
  return { type: "MODIFIED", item: { meta, bytes: new Uint8Array(bytes) } as never };
}

function ringsOf(budget: RingBudget, count: number, isFirst = false): Ring[] {
  return Array.from({ length: count }, () => {
    const ring = new Ring(10_000, 256 * KIB, "0", budget);
    budget.add(ring, isFirst);
    return ring;
  });
}

const sum = (rings: readonly Ring[]) => rings.reduce((all, { sizeBytes }) => all + sizeBytes, 0);

test("a hundred busy rings stay within one budget, and each still knows its newest", () => {
  const rings = ringsOf(new RingBudget(512 * KIB), 100);
  for (let revision = 1; revision <= 100; revision++) for (const ring of rings) ring.append(frame(revision));
  expect(sum(rings)).toBeLessThanOrEqual(512 * KIB);
  for (const ring of rings) expect(ring.at(ring.nextSeq - 1)).toBeDefined();
});

test("the node's own give way last", () => {
  const budget = new RingBudget(512 * KIB);
  const [own] = ringsOf(budget, 1, true);
  for (let revision = 1; revision <= 200; revision++) own!.append(frame(revision));
  const others = ringsOf(budget, 50);
  for (let revision = 1; revision <= 50; revision++) for (const ring of others) ring.append(frame(revision));
  expect(own!.sizeBytes).toBe(200 * KIB);
  expect(own!.floor).toBe("0");
  expect(sum([own!, ...others])).toBeLessThanOrEqual(512 * KIB);
});

test("what was given up is known to be gone", () => {
  const [ring] = ringsOf(new RingBudget(64 * KIB), 1);
  for (let revision = 1; revision <= 100; revision++) ring!.append(frame(revision));
  expect(Number(ring!.floor)).toBeGreaterThan(30);
  expect(ring!.at(1)).toBeUndefined();
});
