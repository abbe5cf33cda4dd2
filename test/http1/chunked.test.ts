import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { ChunkedReader, ChunkError, chunkOf, LAST_CHUNK } from "../../src/http1/chunked.ts";

/** Pushes pieces. @returns the body, what was left over, and whether it ended. */
function read(pieces: readonly Uint8Array[]): { body: string; rest: string; isDone: boolean } {
  const reader = new ChunkedReader();
  const body: Buffer[] = [];
  const rest: Uint8Array[] = [];
  for (const piece of pieces) {
    const taken = reader.isDone ? 0 : reader.push(piece, (data) => body.push(Buffer.from(data)));
    rest.push(piece.subarray(taken));
  }
  return {
    body: Buffer.concat(body).toString("latin1"),
    rest: Buffer.concat(rest).toString("latin1"),
    isDone: reader.isDone,
  };
}

const bytes = (text: string) => Buffer.from(text, "latin1");

describe("a body in chunks", () => {
  test("is read whatever pieces it comes in, and what follows is left", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }),
        fc.string({ maxLength: 12 }),
        fc.array(fc.nat(60), { maxLength: 12 }),
        (chunks, next, cuts) => {
          const whole = Buffer.concat([...chunks.map(chunkOf), LAST_CHUNK, bytes(next)]);
          const pieces: Uint8Array[] = [];
          let at = 0;
          for (const cut of cuts) pieces.push(whole.subarray(at, (at = Math.min(whole.length, at + cut))));
          pieces.push(whole.subarray(at));
          expect(read(pieces)).toEqual({
            body: Buffer.concat(chunks).toString("latin1"),
            rest: bytes(next).toString("latin1"),
            isDone: true,
          });
        },
      ),
      { numRuns: 300 },
    );
  });

  test("may carry extensions and trailers, which are dropped", () => {
    expect(read([bytes('3;a="b"\r\nabc\r\n0\r\nTrailer: x\r\n\r\nGET')])).toEqual({
      body: "abc",
      rest: "GET",
      isDone: true,
    });
  });

  test.each([
    ["no size", "\r\nabc\r\n0\r\n\r\n"],
    ["a size that is no number", "zz\r\nabc\r\n0\r\n\r\n"],
    ["a size with a sign", "-3\r\nabc\r\n"],
    ["a size with 0x", "0x3\r\nabc\r\n"],
    ["space before the size", " 3\r\nabc\r\n"],
    ["space behind the size", "3 \r\nabc\r\n"],
    ["an endless size", "1111111111111\r\n"],
    ["a bare LF behind the size", "3\nabc\r\n0\r\n\r\n"],
    ["a CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"],
    ["a chunk that is longer than said", "3\r\nabcXX0\r\n\r\n"],
    ["a bare LF behind a chunk", "3\r\nabc\n0\r\n\r\n"],
    ["a bare LF at the end", "3\r\nabc\r\n0\r\n\n"],
    ["a trailer without a colon", "0\r\nabc\r\n\r\n"],
    ["an endless extension", `3;${"a".repeat(5_000)}\r\nabc\r\n0\r\n\r\n`],
    ["endless trailers", `0\r\n${`T: ${"a".repeat(1_000)}\r\n`.repeat(20)}\r\n`],
  ])("is refused with %s", (_, text) => {
    expect(() => read([bytes(text)])).toThrow(ChunkError);
  });
});
