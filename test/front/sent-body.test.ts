/**
 * Bodies that are gathered, many at once.
 */

import { expect, test } from "bun:test";
import type { Exchange } from "../../src/front/exchange.ts";
import { bodyIsOver, sentBody, type SentBody } from "../../src/front/sent-body.ts";

const PIECE = 64 * 1024;
const SIZE = 1_000_000;

/** A request whose body comes in pieces, but for its last bytes. */
function stalled(size = SIZE): Exchange {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let left = size - 1; left > 0; left -= PIECE) yield new Uint8Array(Math.min(PIECE, left));
    await new Promise(() => {});
  }
  return { method: "POST", bodyLength: size, body: { [Symbol.asyncIterator]: pieces } } as unknown as Exchange;
}

/** Whether it goes up as it comes; false while it is still being gathered. */
async function isPassedOn(sent: SentBody | Promise<SentBody>): Promise<boolean> {
  const first = await Promise.race([sent, Bun.sleep(50)]);
  return first?.body instanceof ReadableStream;
}

test("of a hundred bodies a few are gathered, the rest goes up as it comes, and the node's are gathered all the same", async () => {
  const exchanges = Array.from({ length: 100 }, () => stalled());
  const sent = exchanges.map((exchange) => sentBody(exchange, false));
  const passed = (await Promise.all(sent.map(isPassedOn))).filter(Boolean).length;
  expect(passed).toBeGreaterThanOrEqual(94);
  const small = stalled(20_000);
  const own = stalled();
  expect(await isPassedOn(sentBody(small, false))).toBe(false);
  expect(await isPassedOn(sentBody(own, true))).toBe(false);
  // What is over makes room.
  for (const exchange of [...exchanges, small, own]) bodyIsOver(exchange);
  const next = stalled();
  expect(await isPassedOn(sentBody(next, false))).toBe(false);
  bodyIsOver(next);
});
