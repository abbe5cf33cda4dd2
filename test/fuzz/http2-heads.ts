/**
 * Header blocks of HTTP/2 against a reader after RFC 7541 that works on a
 * string of bits, and whole connections in pieces against the same in one.
 */

import {
  ConnectionError,
  FLAG,
  FRAME,
  frameHead,
  headersFrames,
  numbersFrame,
  settingsFrame,
} from "../../src/http2/frames.ts";
import { HeaderDecoder } from "../../src/http2/header-decoder.ts";
import { HeaderEncoder } from "../../src/http2/header-encoder.ts";
import { MAX_TABLE_BYTES, STATIC_FIELDS, type HeaderField } from "../../src/http2/header-table.ts";
import { HpackError } from "../../src/http2/hpack-error.ts";
import { huffmanLength, huffmanWrite } from "../../src/http2/huffman.ts";
import { Inbound } from "../../src/http2/inbound.ts";
import { bent, joined, pieces } from "./bent.ts";
import type { Draw } from "./random.ts";

const MOST_BYTES = 20_000;
const symbols = new Map<string, string>();
for (let code = 0; code < 256; code++) {
  // Eight times a code is whole bytes.
  const text = String.fromCharCode(code).repeat(8);
  const bytes = new Uint8Array(huffmanLength(text));
  huffmanWrite(text, bytes, 0);
  symbols.set(bitsOf(bytes).slice(0, bytes.length), String.fromCharCode(code));
}

function bitsOf(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
}

function fieldsOf(draw: Draw): HeaderField[] {
  const text = () =>
    draw.chance(0.2)
      ? Buffer.from(Array.from({ length: draw.index(40) }, () => draw.index(256))).toString("latin1")
      : draw.of(["", "200", "application/json", "a".repeat(draw.of([1, 126, 127, 128, 300])), "Mon, 30 Nov 2026"]);
  return Array.from({ length: draw.index(6) }, () =>
    draw.chance(0.4) ? draw.of(STATIC_FIELDS) : [draw.of(["x-a", "date", "audit-id", text()]), text()],
  );
}

/** Several blocks of one connection, read one after the other until one is refused. */
function ours(blocks: readonly Uint8Array[]): unknown[] {
  const decoder = new HeaderDecoder();
  return untilRefused(blocks, (block) => [decoder.read(block, MOST_BYTES), decoder.tableBytes]);
}

function untilRefused(blocks: readonly Uint8Array[], read: (block: Uint8Array) => unknown): unknown[] {
  const told: unknown[] = [];
  for (const block of blocks)
    try {
      told.push(read(block));
    } catch (error) {
      const isKnown = error instanceof HpackError || error instanceof RangeError;
      return [...told, isKnown ? "refused" : `threw ${String(error)}`];
    }
  return told;
}

/** @throws {RangeError} for what is none. */
function slowly(blocks: readonly Uint8Array[]): unknown[] {
  let table: HeaderField[] = [];
  let most = MAX_TABLE_BYTES;
  const cost = (fields: readonly HeaderField[]) => fields.reduce((sum, [a, b]) => sum + a.length + b.length + 32, 0);
  const fit = () => {
    while (cost(table) > most) table = table.slice(0, -1);
  };
  return untilRefused(blocks, (block) => {
    let bits = bitsOf(block);
    const take = (count: number) => {
      if (bits.length < count) throw new RangeError("short");
      const part = bits.slice(0, count);
      bits = bits.slice(count);
      return part;
    };
    const number = (prefix: number) => {
      let value = BigInt(`0b${take(prefix)}`);
      if (value < 2n ** BigInt(prefix) - 1n) return Number(value);
      for (let i = 0n; ; i++) {
        if (i === 4n) throw new RangeError("large");
        const goesOn = take(1) === "1";
        value += BigInt(`0b${take(7)}`) << (7n * i);
        if (!goesOn) return Number(value);
      }
    };
    const text = () => {
      const isCoded = take(1) === "1";
      const part = take(8 * number(7));
      return isCoded
        ? uncoded(part)
        : (part.match(/.{8}/g) ?? []).map((byte) => String.fromCharCode(Number(`0b${byte}`))).join("");
    };
    const entry = (index: number): HeaderField => {
      const found = index === 0 ? undefined : [...STATIC_FIELDS, ...table][index - 1];
      if (found === undefined) throw new RangeError("index");
      return found;
    };
    const fields: HeaderField[] = [];
    while (bits !== "") {
      if (bits.startsWith("001")) {
        take(3);
        most = number(5);
        if (fields.length > 0 || most > MAX_TABLE_BYTES) throw new RangeError("size");
        fit();
        continue;
      }
      const isIndexed = bits.startsWith("1");
      const joins = bits.startsWith("01");
      take(isIndexed ? 1 : joins ? 2 : 4);
      const index = number(isIndexed ? 7 : joins ? 6 : 4);
      const field: HeaderField = isIndexed ? entry(index) : [index === 0 ? text() : entry(index)[0], text()];
      fields.push(field);
      if (joins) table = [field, ...table];
      fit();
      if (cost(fields) > MOST_BYTES) throw new RangeError("long");
    }
    return [fields, cost(table)];
  });
}

function uncoded(bits: string): string {
  let text = "";
  let code = "";
  for (const bit of bits) {
    code += bit;
    const symbol = symbols.get(code);
    if (symbol === undefined && code.length > 30) throw new RangeError("code");
    if (symbol === undefined) continue;
    text += symbol;
    code = "";
  }
  if (code.length > 7 || code.includes("0")) throw new RangeError("padding");
  return text;
}

/** @returns what differs, in words; undefined where both agree. */
export function http2Heads(draw: Draw): string | undefined {
  const encoder = new HeaderEncoder();
  const heads = Array.from({ length: 1 + draw.index(4) }, () => fieldsOf(draw));
  const blocks = heads.map((fields) => {
    if (draw.chance(0.2)) encoder.resize(draw.of([0, 60, 200, 4_096]));
    return encoder.write(fields);
  });
  const sent = blocks.map((block) => (draw.chance(0.3) ? bent(draw, block) : block));
  const [one, other] = [JSON.stringify(ours(sent)), JSON.stringify(slowly(sent))];
  if (one === other && !one.includes('"threw')) return undefined;
  return `${sent.map((block) => Buffer.from(block).toString("hex")).join(" ")}: ours ${one}, reference ${other}`;
}

/** What a connection tells, and how it ends. */
function toldBy(parts: readonly Uint8Array[]): string {
  const told: unknown[] = [];
  const note = (...what: unknown[]) =>
    void told.push(what.map((one) => (Buffer.isBuffer(one) ? one.toString("hex") : one)));
  const inbound = new Inbound({
    data: (...what) => note("data", ...what),
    fields: (...what) => note("fields", ...what),
    reset: (...what) => note("reset", ...what),
    setting: (...what) => note("setting", ...what),
    settingsEnd: () => note("settings"),
    ping: (...what) => note("ping", ...what),
    goAway: (...what) => note("goaway", ...what),
    windowUpdate: (...what) => note("window", ...what),
  });
  try {
    for (const part of parts) inbound.push(Buffer.from(part));
  } catch (error) {
    if (!(error instanceof ConnectionError) && !(error instanceof HpackError)) return `threw ${String(error)}`;
    told.push(error.message);
  }
  return JSON.stringify(told);
}

/** Frames, bent or not, in pieces and in one. @returns what differs, in words. */
export function http2Frames(draw: Draw): string | undefined {
  const encoder = new HeaderEncoder();
  const frame = (): Uint8Array => {
    const stream = draw.of([1, 1, 3, 5, 0, 2]);
    const text = Buffer.alloc(draw.of([0, 1, 8, 40, 16_384]), "x");
    const plain = (type: number, payload: Buffer) =>
      joined(frameHead(type, draw.of([0, FLAG.endStream, FLAG.padded]), stream, payload.length), payload);
    return draw.of([
      () => joined(...headersFrames(stream, encoder.write(fieldsOf(draw)), draw.chance(0.3))),
      () => plain(FRAME.data, text),
      () => plain(draw.index(12), text),
      () => numbersFrame(draw.of([FRAME.reset, FRAME.windowUpdate]), stream, draw.index(2 ** 31)),
      () => numbersFrame(FRAME.goAway, 0, stream, draw.index(14)),
      () => settingsFrame([[draw.index(8), draw.of([0, 1, 100, 16_384, 2 ** 31])]]),
    ])();
  };
  const good = joined(settingsFrame([[3, 100]]), ...Array.from({ length: draw.index(8) }, frame));
  const bytes = draw.chance(0.5) ? bent(draw, good) : good;
  const [whole, cut] = [toldBy([bytes]), toldBy(pieces(draw, bytes))];
  if (whole === cut && !whole.startsWith("threw")) return undefined;
  return `${Buffer.from(bytes).toString("hex").slice(0, 2_000)}: whole ${whole.slice(0, 500)}, in pieces ${cut.slice(0, 500)}`;
}
