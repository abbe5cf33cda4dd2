import { describe, expect, test } from "bun:test";
import { watchSeconds } from "../../src/cache/watch-length.ts";

const COLLECTION = { fieldSelector: "" };
const OBJECT = { fieldSelector: "metadata.name=settings" };
const endMs = (of: { readonly fieldSelector: string }, nowMs: number, phase = 0.3) =>
  nowMs + watchSeconds(of, nowMs, phase) * 1_000;

describe("watchSeconds", () => {
  test("ends watches that began minutes apart within one second of each other", () => {
    const ends = [5_000, 61_234, 119_999, 200_001].map((nowMs) => endMs(OBJECT, nowMs));
    expect(Math.max(...ends) - Math.min(...ends)).toBeLessThan(1_000);
  });

  test("ends those that were opened again together, together", () => {
    const firstMs = endMs(COLLECTION, 5_000);
    const [secondMs, thirdMs] = [endMs(COLLECTION, firstMs + 12), endMs(COLLECTION, firstMs + 980)];
    expect(Math.abs(secondMs - thirdMs)).toBeLessThan(1_000);
    expect(secondMs - firstMs).toBeWithin(479_000, 482_000);
  });

  test("lets an end of the long ones meet one of the short", () => {
    const shortEndMs = endMs(COLLECTION, endMs(OBJECT, 5_000) - 480_000 + 20);
    expect(Math.abs(shortEndMs - endMs(OBJECT, 5_000))).toBeLessThan(1_000);
  });

  test("asks for half a tick at least and for less than one and a half", () => {
    for (let nowMs = 0; nowMs < 5_000_000; nowMs += 7_777) {
      expect(watchSeconds(COLLECTION, nowMs, 0.9)).toBeWithin(240, 720);
      expect(watchSeconds(OBJECT, nowMs, 0.9)).toBeWithin(1_200, 3_600);
    }
  });

  test("ends the watches of nodes that drew differently at different times", () => {
    expect(endMs(OBJECT, 5_000, 0.1)).not.toBe(endMs(OBJECT, 5_000, 0.6));
  });
});
