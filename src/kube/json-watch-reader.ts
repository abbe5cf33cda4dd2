/**
 * Splits a JSON watch stream into events.
 *
 * Events are documents `{"type":..,"object":..}` one after another; where one
 * ends is found by its brackets, for nothing promises a newline. The object of
 * an event is brought into the form a LIST gives it: for built-in kinds that
 * is without `kind` and `apiVersion`, which the API server writes first.
 *
 * In a Table stream each object is a Table with one row, and the row is the
 * item. The API server sends columnDefinitions with the first event only, and
 * its bookmarks are Tables too: the resourceVersion stands in the Table's
 * metadata, the annotation that ends the initial events in its row's object.
 *
 * Source: apiserver endpoints/handlers/response.go (watchEmbeddedEncoder,
 * asTable) and kubernetes pkg/printers/tablegenerator.go.
 */

import { ByteBuffer, copyBytes, joinBytes } from "./byte-buffer.ts";
import { type Item, MalformedError, type Shape, type WatchFrame, type WatchReader } from "./codec.ts";
import { itemKind } from "./item-kind.ts";
import { isParsed, MAX_OBJECT_BYTES, metaOf, type Parsed, textOf } from "./json-list-reader.ts";
import {
  CLOSE_BRACE,
  elementsOf,
  isWhitespace,
  memberOf,
  membersOf,
  OPEN_BRACE,
  parseText,
  ValueScanner,
} from "./json-scan.ts";

/** The object, and 4 KiB for `type` and the rest around it. */
const MAX_FRAME_BYTES = MAX_OBJECT_BYTES + 4096;
const NEWLINE = 0x0a;

const encoder = new TextEncoder();
const STARTS = (["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"] as const).map((type) => ({
  type,
  start: encoder.encode(`{"type":"${type}","object":`),
}));

/** A frame taken apart: where its object stands in it, and the object parsed. */
interface Opened {
  readonly type: string;
  readonly object: Parsed;
  readonly from: number;
  readonly to: number;
}

/** Reads a watch in JSON, bringing objects into the form of the list. */
export class JsonWatchReader implements WatchReader {
  readonly #partial = new ByteBuffer();
  readonly #scanner = new ValueScanner();
  readonly #typeMeta: Uint8Array;
  #isInFrame = false;

  constructor(private readonly shape: Shape) {
    this.#typeMeta = encoder.encode(
      `{"kind":${JSON.stringify(itemKind(shape))},"apiVersion":${JSON.stringify(shape.apiVersion)},`,
    );
  }

  /** Bytes of memory held: at most one frame. */
  get bufferedBytes(): number {
    return this.#partial.capacity;
  }

  isBetweenFrames(): boolean {
    return !this.#isInFrame;
  }

  push(chunk: Uint8Array): WatchFrame[] {
    const frames: WatchFrame[] = [];
    let i = 0;
    while (i < chunk.length) {
      if (!this.#isInFrame) {
        const byte = chunk[i]!;
        if (isWhitespace(byte)) {
          i++;
          continue;
        }
        if (byte !== OPEN_BRACE) throw new MalformedError("Cannot read watch: an event does not begin with a brace");
        this.#isInFrame = true;
      }
      i = this.#readFrame(chunk, i, frames);
    }
    return frames;
  }

  #readFrame(chunk: Uint8Array, from: number, frames: WatchFrame[]): number {
    if (this.#partial.length === 0) {
      // The API server ends each event with a newline and writes none inside. If what lies before it
      // parses, it is one whole event; else brackets are counted, which without a JIT takes far longer.
      const newline = chunk.indexOf(NEWLINE, from);
      const opened =
        newline < 0 || newline - from > MAX_FRAME_BYTES ? undefined : openQuickly(chunk.subarray(from, newline));
      if (opened !== undefined) {
        frames.push(this.#decode(chunk.subarray(from, newline), opened));
        this.#isInFrame = false;
        return newline + 1;
      }
    }
    const end = this.#scanner.scan(chunk, from);
    const stop = end < 0 ? chunk.length : end;
    if (this.#partial.length + stop - from > MAX_FRAME_BYTES)
      throw new MalformedError("Cannot read watch: an event is larger than 16 MiB");
    if (end < 0 || this.#partial.length > 0) this.#partial.append(chunk, from, stop);
    if (end < 0) return stop;
    const frame = this.#partial.length > 0 ? this.#partial.view() : chunk.subarray(from, end);
    frames.push(this.#decode(frame, openQuickly(frame) ?? openSlowly(frame)));
    this.#partial.clear();
    this.#isInFrame = false;
    return end;
  }

  #decode(frame: Uint8Array, opened: Opened): WatchFrame {
    switch (opened.type) {
      case "ADDED":
      case "MODIFIED":
      case "DELETED":
        return {
          type: opened.type,
          item: this.shape.listKind === "Table" ? rowOf(frame, opened) : this.#itemOf(frame, opened),
        };
      case "BOOKMARK":
        return bookmarkOf(opened.object);
      case "ERROR":
        return errorOf(opened.object);
      default:
        throw new MalformedError("Cannot read watch: an event of an unknown type");
    }
  }

  #itemOf(frame: Uint8Array, { object, from, to }: Opened): Item {
    const meta = metaOf(object);
    if (!this.shape.isBare || !("kind" in object || "apiVersion" in object))
      return { meta, bytes: copyBytes(frame, from, to) };
    if (object["kind"] !== itemKind(this.shape))
      throw new MalformedError("Cannot read watch: an object of another kind than the list's");
    if (startsWith(frame, this.#typeMeta, from)) {
      const bytes = copyBytes(frame, from + this.#typeMeta.length - 1, to);
      bytes[0] = OPEN_BRACE;
      return { meta, bytes };
    }
    return { meta, bytes: withoutTypeMeta(frame, from, to) };
  }
}

/** The API server's own layout: what lies between `"object":` and the last brace parses as one object, or the layout is another. */
function openQuickly(frame: Uint8Array): Opened | undefined {
  const known = STARTS.find(({ start }) => startsWith(frame, start, 0));
  if (known === undefined) return undefined;
  const from = known.start.length;
  const to = frame.length - 1;
  if (frame[from] !== OPEN_BRACE || frame[to - 1] !== CLOSE_BRACE) return undefined;
  try {
    return { type: known.type, object: parseText(frame, from, to) as Parsed, from, to };
  } catch {
    return undefined;
  }
}

function openSlowly(frame: Uint8Array): Opened {
  const { type, object } = parseText(frame) as Parsed;
  const member = memberOf(frame, 0, "object");
  if (typeof type !== "string" || !isParsed(object) || member === undefined)
    throw new MalformedError("Cannot read watch: an event without type and object");
  return { type, object, from: member.valueStart, to: member.valueEnd };
}

function startsWith(bytes: Uint8Array, start: Uint8Array, at: number): boolean {
  if (bytes.length - at < start.length) return false;
  for (let i = 0; i < start.length; i++) if (bytes[at + i] !== start[i]) return false;
  return true;
}

/** The object `frame[from, to)` with its own kind and apiVersion cut out, wherever they stand; the rest stays byte for byte. */
function withoutTypeMeta(frame: Uint8Array, from: number, to: number): Uint8Array {
  const members = membersOf(frame, from);
  const parts = [frame.subarray(from, members[0]!.start)];
  let separatorFrom = -1;
  members.forEach((member, i) => {
    if (member.key === "kind" || member.key === "apiVersion") return;
    if (separatorFrom >= 0)
      parts.push(frame.subarray(members[separatorFrom]!.valueEnd, members[separatorFrom + 1]!.start));
    parts.push(frame.subarray(member.start, member.valueEnd));
    separatorFrom = i;
  });
  parts.push(frame.subarray(members.at(-1)!.valueEnd, to));
  return joinBytes(parts);
}

function rowOf(frame: Uint8Array, { object, from }: Opened): Item {
  const parsedRow = singleRow(object);
  if (parsedRow === undefined) throw new MalformedError("Cannot read watch: a Table event without a row");
  const [row] = elementsOf(frame, memberOf(frame, from, "rows")!.valueStart);
  return { meta: metaOf(parsedRow["object"]), bytes: copyBytes(frame, row!.start, row!.end) };
}

/** The one row of a Table event. The API server makes the Table from one object, so more than one cannot be told apart as events. */
function singleRow(table: Parsed): Parsed | undefined {
  const rows = table["rows"];
  if (
    table["kind"] !== "Table" ||
    !(rows === null || rows === undefined || (Array.isArray(rows) && rows.length <= 1))
  ) {
    throw new MalformedError("Cannot read watch: an event is not a Table of one row");
  }
  const row: unknown = rows?.[0];
  return isParsed(row) ? row : undefined;
}

function bookmarkOf(object: Parsed): WatchFrame {
  const places = [object["metadata"]];
  if (object["kind"] === "Table") {
    const row = singleRow(object)?.["object"];
    if (isParsed(row)) places.push(row["metadata"]);
  }
  let resourceVersion = "";
  let isInitialEventsEnd = false;
  for (const metadata of places) {
    if (!isParsed(metadata)) continue;
    resourceVersion ||= textOf(metadata["resourceVersion"]);
    const annotations = metadata["annotations"];
    if (isParsed(annotations) && annotations["k8s.io/initial-events-end"] === "true") isInitialEventsEnd = true;
  }
  if (resourceVersion === "") throw new MalformedError("Cannot read watch: a bookmark without a resourceVersion");
  return { type: "BOOKMARK", resourceVersion, isInitialEventsEnd };
}

function errorOf(status: Parsed): WatchFrame {
  const { code } = status;
  return {
    type: "ERROR",
    code: typeof code === "number" ? code : 500,
    reason: textOf(status["reason"]),
    message: textOf(status["message"]),
  };
}
