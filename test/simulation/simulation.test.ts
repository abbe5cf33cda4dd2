import { describe, expect, test } from "bun:test";
import type { Violation } from "./checks.ts";
import { plantedFaults, worldsWith } from "./planted-faults.ts";
import { runOverlaySeed } from "./overlay-world.ts";
import { runSeed } from "./world.ts";

/** The first seeds of `bun run simulate`; every tenth runs on the real store. */
const SAMPLE = 400;
/** The first of those with a kubelet that writes while cut. */
const KUBELET_SAMPLE = 200;
/** The first of those on the real way of a request. */
const WAY_SAMPLE = 100;
/** Worlds in which one of the two once broke a promise. */
const REMEMBERED = [
  186, 299, 355, 390, 441, 477, 625, 645, 661, 1077, 1081, 1335, 1443, 1663, 1670, 1737, 1820, 2580, 2902, 3267,
];
/** The same, on the real way of a request. */
const REMEMBERED_WAY = [
  139, 237, 359, 385, 637, 886, 2580, 3041, 3428, 4214, 4431, 5947, 6536, 8113, 9137, 10979, 11829, 12394, 16549, 19703,
  30993, 31072, 31685, 32062, 33502, 41938,
];
/** Each planted fault is found within so many seeds. */
const FOUND_WITHIN = 300;

describe("a simulated node", () => {
  test(`keeps its promises in ${SAMPLE} worlds`, () => {
    const broken: string[] = [];
    const counts = new Map<string, number>();
    for (let seed = 0; seed < SAMPLE; seed++) {
      const { violation, counts: seen } = runSeed(seed);
      if (violation !== undefined) broken.push(`seed ${seed}: ${violation.promise}: ${violation.text}`);
      for (const [what, count] of seen) counts.set(what, (counts.get(what) ?? 0) + count);
    }
    expect(broken).toEqual([]);
    // A world in which nothing happens keeps every promise.
    for (const what of [
      "event",
      "watch resumed",
      "stream opened",
      "link lost",
      "list: expired",
      "list: rollback",
      "crash",
      "get: copy",
    ])
      expect({ what, isSeen: (counts.get(what) ?? 0) > 100 }).toEqual({ what, isSeen: true });
  });

  test(`keeps them in ${KUBELET_SAMPLE} worlds where kubelet writes while cut`, () => {
    const broken: string[] = [];
    const counts = new Map<string, number>();
    for (let seed = 0; seed < KUBELET_SAMPLE; seed++) {
      const { violation, counts: seen } = runOverlaySeed(seed);
      if (violation !== undefined) broken.push(`seed ${seed}: ${violation.promise}: ${violation.text}`);
      for (const [what, count] of seen) counts.set(what, (counts.get(what) ?? 0) + count);
    }
    expect(broken).toEqual([]);
    for (const what of ["status: overlaid", "status: forwarded", "link lost", "node: crash", "node: reboot"])
      expect({ what, isSeen: (counts.get(what) ?? 0) > 100 }).toEqual({ what, isSeen: true });
    const { trace } = runOverlaySeed(3, { isTraced: true });
    expect(runOverlaySeed(3, { isTraced: true }).trace).toEqual(trace);
  });

  test(`keeps them in ${WAY_SAMPLE} worlds on the real way of a request`, () => {
    const broken: string[] = [];
    const counts = new Map<string, number>();
    for (let seed = 0; seed < WAY_SAMPLE; seed++) {
      const { violation, counts: seen } = runSeed(seed, { isWay: true });
      if (violation !== undefined) broken.push(`seed ${seed}: ${violation.promise}: ${violation.text}`);
      for (const [what, count] of seen) counts.set(what, (counts.get(what) ?? 0) + count);
    }
    expect(broken).toEqual([]);
    const least = { remembered: 20, "own write 200": 20, foreign: 100, event: 1_000, "watch resumed": 1_000 };
    for (const [what, count] of Object.entries(least))
      expect({ what, isSeen: (counts.get(what) ?? 0) >= count }).toEqual({ what, isSeen: true });
  });

  test("keeps them in worlds where it once did not", () => {
    const broken: string[] = [];
    for (const seed of REMEMBERED_WAY) {
      const { violation } = runSeed(seed, { isWay: true });
      if (violation !== undefined) broken.push(`way seed ${seed}: ${violation.promise}: ${violation.text}`);
    }
    for (const seed of REMEMBERED)
      for (const { violation } of [runSeed(seed), runOverlaySeed(seed)])
        if (violation !== undefined) broken.push(`seed ${seed}: ${violation.promise}: ${violation.text}`);
    expect(broken).toEqual([]);
  });

  test("runs the same way every time", () => {
    for (const seed of [1, 7, 9]) {
      const { trace } = runSeed(seed, { isTraced: true });
      expect(trace.length).toBeGreaterThan(50);
      expect(runSeed(seed, { isTraced: true }).trace).toEqual(trace);
    }
  });
});

describe("a simulated node is caught when", () => {
  for (const fault of plantedFaults) {
    test(fault.name, async () => {
      const options = { ...(await worldsWith(fault)), isWay: fault.at === "way" };
      const run = fault.at === "kubelet" ? runOverlaySeed : runSeed;
      let found: Violation | undefined;
      const [first, end] = fault.seed === undefined ? [0, FOUND_WITHIN] : [fault.seed, fault.seed + 1];
      for (let seed = first; seed < end && found === undefined; seed++) found = run(seed, options).violation;
      expect(found).toBeDefined();
      expect(fault.breaks).toContain(found!.promise);
    });
  }
});
