import { describe, expect, test } from "bun:test";
import { plantedFaults, worldsWith } from "./planted-faults.ts";
import { runSeed } from "./world.ts";

/** A different part of the seeds than `bun run simulate` begins with would prove no more; this one is always the same. */
const SAMPLE = 400;
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
    for (const what of ["event", "watch resumed", "stream opened", "link lost", "list: expired", "crash", "get: copy"])
      expect({ what, isSeen: (counts.get(what) ?? 0) > 100 }).toEqual({ what, isSeen: true });
  });

  test("runs the same way every time", () => {
    for (const seed of [1, 7, 49]) {
      const { trace } = runSeed(seed, { isTraced: true });
      expect(trace.length).toBeGreaterThan(50);
      expect(runSeed(seed, { isTraced: true }).trace).toEqual(trace);
    }
  });
});

describe("a simulated node is caught when", () => {
  for (const fault of plantedFaults) {
    test(fault.name, async () => {
      const options = await worldsWith(fault);
      let seed = 0;
      while (seed < FOUND_WITHIN && runSeed(seed, options).violation === undefined) seed++;
      expect(seed).toBeLessThan(FOUND_WITHIN);
    });
  }
});
