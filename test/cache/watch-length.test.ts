import { describe, expect, test } from "bun:test";
import { watchSeconds } from "../../src/cache/watch-length.ts";

const COLLECTION = { fieldSelector: "" };
const OBJECT = { fieldSelector: "metadata.name=settings" };
const endMs = (of: { readonly fieldSelector: string }, nowMs: number, phase = 0.3) =>
  nowMs + watchSeconds(of, nowMs, phase) * 1_000;

describe("watchSeconds", () => {
  test("ends watches that began minutes apart within one second of each other", () => {
    const ends = [COLLECTION, OBJECT].flatMap((of) => [5_000, 61_234, 200_001].map((nowMs) => endMs(of, nowMs, 0)));
    expect(Math.max(...ends) - Math.min(...ends)).toBeLessThan(1_000);
  });

  test("ends those that were opened again together, together: collections after 8 minutes, objects after up to 40", () => {
    const firstMs = endMs(OBJECT, 5_000);
    for (const [of, least, most] of [
      [COLLECTION, 479_000, 482_000],
      [OBJECT, 479_000, 2_402_000],
    ] as const) {
      const [onceMs, againMs] = [endMs(of, firstMs + 12), endMs(of, firstMs + 980)];
      expect(Math.abs(onceMs - againMs)).toBeLessThan(1_000);
      expect(onceMs - firstMs).toBeWithin(least, most);
    }
  });

  test("lets each end of the long ones meet one of the short", () => {
    const longEndMs = endMs(OBJECT, endMs(OBJECT, 5_000) + 500);
    expect(Math.abs(endMs(COLLECTION, longEndMs - 470_000) - longEndMs)).toBeLessThan(1_000);
    // Once together, an object's watch lasts the whole of its tick.
    expect(endMs(OBJECT, longEndMs + 500) - longEndMs).toBeWithin(2_399_000, 2_402_000);
  });

  test("asks for no less than client-go does, and for objects at first for a minute", () => {
    for (let nowMs = 0; nowMs < 5_000_000; nowMs += 7_777) {
      expect(watchSeconds(COLLECTION, nowMs, 0.9)).toBeWithin(240, 720);
      expect(watchSeconds(OBJECT, nowMs, 0.9)).toBeWithin(60, 2_401);
    }
  });

  test("ends the watches of nodes that drew differently at different times", () => {
    expect(endMs(COLLECTION, 5_000, 0.1)).not.toBe(endMs(COLLECTION, 5_000, 0.13));
  });
});
