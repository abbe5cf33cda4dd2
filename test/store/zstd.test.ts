import { expect, test } from "bun:test";
import { zstdDecompressSync } from "node:zlib";
import { compressWith } from "../../src/store/zstd.ts";

const text = (n: number, size = 40) =>
  Buffer.from(JSON.stringify({ n, keys: Array.from({ length: size }, (_, i) => `key-${i}`) }));
const opened = (bytes: Uint8Array, dictionary: Uint8Array) => zstdDecompressSync(bytes, { dictionary } as object);

test("values by many dictionaries in turns come back as they were", () => {
  const dictionaries = Array.from({ length: 70 }, (_, n) => text(n));
  for (let round = 0; round < 3; round++)
    for (const [n, dictionary] of dictionaries.entries()) {
      const value = text(1_000 + n + round);
      const packed = compressWith(dictionary, value);
      expect(packed.length).toBeLessThan(value.length / 4);
      expect(opened(packed, dictionary).equals(value)).toBe(true);
    }
});

test("what is long, or does not shrink, comes back too, and spoils nothing for the next", () => {
  const dictionary = text(1);
  const noise = crypto.getRandomValues(new Uint8Array(65_536));
  for (const value of [noise, Buffer.concat([noise, noise]), text(2, 20_000), text(3)])
    expect(opened(compressWith(dictionary, value), dictionary).equals(value)).toBe(true);
});
