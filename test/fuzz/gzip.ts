/**
 * Gzip in members and flushes, unfolded as it comes, against what went in.
 */

import { gunzipSync, gzipSync } from "node:zlib";
import { unfolded } from "../../src/uplink/unfold.ts";
import { bent, joined, pieces } from "./bent.ts";
import type { Draw } from "./random.ts";

const MAX_BYTES = 20_000;

/** @returns what differs, in words; undefined where both agree. */
export async function gzipMembers(draw: Draw): Promise<string | undefined> {
  const texts = Array.from({ length: 1 + draw.index(4) }, () =>
    Buffer.from("ab{}".charAt(draw.index(4)).repeat(draw.of([0, 1, 300, 9_000]))),
  );
  const good = joined(...texts.map((text) => gzipSync(text, { level: draw.of([0, 1, 9]) })));
  const isBent = draw.chance(0.4);
  const bytes = isBent ? bent(draw, good) : good;
  const whole = joined(...texts);
  const got: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of unfolded(chunksOf(pieces(draw, bytes)), MAX_BYTES)) {
      got.push(chunk);
      size += chunk.length;
      if (size > MAX_BYTES) return `handed out ${size} bytes, more than the bound`;
    }
  } catch {
    if (isBent || whole.length > MAX_BYTES) return undefined;
    return `refused members of ${texts.map(({ length }) => length).join(", ")} bytes`;
  }
  const expected = isBent ? gunzipOf(bytes) : whole;
  return expected !== undefined && Buffer.compare(Buffer.concat(got), expected) === 0
    ? undefined
    : `unfolded ${size} bytes of ${whole.length}: ${Buffer.from(bytes).toString("base64")}`;
}

function gunzipOf(bytes: Uint8Array): Uint8Array | undefined {
  try {
    return gunzipSync(bytes);
  } catch {
    return undefined;
  }
}

async function* chunksOf(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  yield* parts;
}
