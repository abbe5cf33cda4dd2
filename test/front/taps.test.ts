/**
 * What a tap costs: it never does more than its reader takes.
 */

import { expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import type { ListAdoption } from "../../src/cache/list-adoption.ts";
import { ListTap } from "../../src/front/taps.ts";

const MB = 1024 * 1024;

test.each([
  ["whose reader has given up is unfolded no further", 1, MB],
  ["that is read is unfolded to its end", Number.POSITIVE_INFINITY, 64 * MB],
])("a compressed list %s, and its client's answer ends", async (_, wanted, atMost) => {
  let pushed = 0;
  const adoption = {
    begin: () => true,
    push: (bytes: Uint8Array) => (pushed += bytes.length),
    get isReading() {
      return pushed < wanted;
    },
    end() {},
    abort() {},
  };
  const tap = new ListTap(undefined, adoption as unknown as ListAdoption, () => {}, undefined);
  const headers = { get: (name: string) => (name === "content-encoding" ? "gzip" : "application/json") };
  expect(tap.head(200, headers as never, "answer")).toBe(true);
  const packed = gzipSync(new Uint8Array(64 * MB));
  for (let at = 0; at < packed.length; at += 16 * 1024) tap.chunk(packed.subarray(at, at + 16 * 1024));
  await tap.end();
  expect(pushed).toBeGreaterThan(0);
  expect(pushed).toBeLessThanOrEqual(atMost);
  if (atMost > MB) expect(pushed).toBe(64 * MB);
});
