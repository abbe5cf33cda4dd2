/**
 * Splits a JSON list as it arrives.
 *
 * The body is the envelope with a hole where the items stand. What is outside
 * the hole is collected (it is small) and parsed at the end, so the members of
 * the envelope may come in any order: the API server writes built-in lists in
 * Go's order (kind first, items last) and lists of custom resources sorted
 * (items before kind and metadata). Each item is handed out as soon as its
 * last byte is there.
 *
 * A Table is a list whose array is called "rows" and whose rows carry the
 * object's metadata in `object`.
 *
 * Invariant: `end` returns only for a list that arrived whole; a body that is
 * something else, or stops early, is never mistaken for an empty list.
 */

import { ByteBuffer, copyBytes, joinBytes } from "./byte-buffer.ts";
import { type Item, type ItemMeta, type ListHead, type ListReader, MalformedError, type Shape } from "./codec.ts";
import {
  BACKSLASH,
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  isWhitespace,
  OPEN_BRACE,
  OPEN_BRACKET,
  parseText,
  QUOTE,
  ValueScanner,
} from "./json-scan.ts";

/** The envelope's bound: a Table's column definitions are the largest thing in it. */
const MAX_ENVELOPE_BYTES = 1024 * 1024;
/** One object's bound: etcd takes 1.5 MiB by default, and operators raise it by a few times at most. */
export const MAX_OBJECT_BYTES = 16 * 1024 * 1024;

/** The parsed form of anything with metadata; every field may be missing or of another type. */
export type Parsed = Readonly<Record<string, unknown>>;

/** Where the reader is inside the array of items. */
type ArrayState = "outside" | "first" | "next" | "inItem" | "after";

/** Reads a LIST in JSON: plain objects, PartialObjectMetadata or Table. */
export class JsonListReader implements ListReader {
  readonly #envelope = new ByteBuffer();
  readonly #partial = new ByteBuffer();
  readonly #scanner = new ValueScanner();
  #array: ArrayState = "outside";
  #arrayKey = "";
  readonly #boundary = new BoundaryGuess();
  #firstItem: { readonly hasType: boolean; readonly kind: unknown } | undefined;

  // The envelope's own little scanner: it must know keys, so it looks at each byte.
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  #expectsKey = false;
  #key = "";

  /** Bytes of memory held: the envelope and at most one item. */
  get bufferedBytes(): number {
    return this.#envelope.capacity + this.#partial.capacity;
  }

  push(chunk: Uint8Array): Item[] {
    const items: Item[] = [];
    this.#boundary.newChunk();
    let i = 0;
    while (i < chunk.length)
      i = this.#array === "outside" ? this.#readEnvelope(chunk, i) : this.#readArray(chunk, i, items);
    return items;
  }

  end(): ListHead {
    if (this.#array !== "outside" || this.#depth !== 0 || this.#isInString)
      throw new MalformedError("Cannot read list: it ends early");
    const envelope = parseText(this.#envelope.view());
    if (!isParsed(envelope)) throw new MalformedError("Cannot read list: it is not an object");
    return this.#headOf(envelope);
  }

  #headOf(envelope: Parsed): ListHead {
    const { kind, apiVersion } = envelope;
    if (typeof kind !== "string" || typeof apiVersion !== "string" || kind === "" || apiVersion === "") {
      throw new MalformedError("Cannot read list: it has no kind and apiVersion");
    }
    const key = kind === "Table" ? "rows" : "items";
    if (kind === "Status" || !isEmptyArray(envelope[key]) || (this.#arrayKey !== "" && this.#arrayKey !== key)) {
      throw new MalformedError(`Cannot read list: a body of kind "${kind.slice(0, 100)}" is none`);
    }
    const metadata = isParsed(envelope["metadata"]) ? envelope["metadata"] : {};
    return {
      shape: this.#shapeOf(envelope, kind, apiVersion),
      resourceVersion: textOf(metadata["resourceVersion"]),
      continueToken: textOf(metadata["continue"]),
    };
  }

  #shapeOf(envelope: Parsed, listKind: string, apiVersion: string): Shape {
    const shape = { listKind, apiVersion, isBare: this.#isBare(envelope, listKind) };
    if (listKind === "Table") {
      const columns = envelope["columnDefinitions"];
      return Array.isArray(columns) ? { ...shape, columnDefinitions: JSON.stringify(columns) } : shape;
    }
    const itemKind = this.#firstItem?.kind;
    return typeof itemKind === "string" && `${itemKind}List` !== listKind ? { ...shape, itemKind } : shape;
  }

  /** Without an item to look at: Go's order ("kind" first) is a built-in list, sorted keys a custom resource's. */
  #isBare(envelope: Parsed, listKind: string): boolean {
    if (listKind === "Table") return true;
    if (this.#firstItem !== undefined) return !this.#firstItem.hasType;
    // The API server writes kind and apiVersion into each element of this one.
    if (listKind === "PartialObjectMetadataList") return false;
    const keys = Object.keys(envelope);
    return keys.indexOf("kind") < keys.indexOf("apiVersion");
  }

  #readEnvelope(chunk: Uint8Array, from: number): number {
    for (let i = from; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (this.#isInString) this.#stepInString(byte);
      else if (
        byte === OPEN_BRACKET &&
        this.#depth === 1 &&
        !this.#expectsKey &&
        (this.#key === "items" || this.#key === "rows")
      ) {
        if (this.#arrayKey !== "") throw new MalformedError("Cannot read list: it has two arrays of items");
        this.#keepEnvelope(chunk, from, i + 1);
        this.#arrayKey = this.#key;
        this.#array = "first";
        return i + 1;
      } else this.#stepOutsideString(byte);
    }
    this.#keepEnvelope(chunk, from, chunk.length);
    return chunk.length;
  }

  #stepInString(byte: number): void {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (byte === BACKSLASH) this.#isEscaped = true;
    else if (byte === QUOTE) this.#isInString = false;
    // A key written with escapes is not recognised here and refused in `headOf`, where its array is not empty.
    else if (this.#expectsKey && this.#depth === 1 && this.#key.length < 8) this.#key += String.fromCharCode(byte);
  }

  #stepOutsideString(byte: number): void {
    if (byte === QUOTE) {
      this.#isInString = true;
      if (this.#expectsKey && this.#depth === 1) this.#key = "";
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      this.#depth++;
      if (this.#depth === 1) this.#expectsKey = byte === OPEN_BRACE;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      this.#depth--;
    } else if (this.#depth === 1) {
      if (byte === COMMA) this.#expectsKey = true;
      else if (byte === COLON) this.#expectsKey = false;
    }
  }

  #keepEnvelope(chunk: Uint8Array, from: number, to: number): void {
    if (this.#envelope.length + to - from > MAX_ENVELOPE_BYTES)
      throw new MalformedError("Cannot read list: its envelope is larger than 1 MiB");
    this.#envelope.append(chunk, from, to);
  }

  #readArray(chunk: Uint8Array, from: number, items: Item[]): number {
    if (this.#array === "inItem") return this.#readItem(chunk, from, items);
    const byte = chunk[from]!;
    if (isWhitespace(byte)) return from + 1;
    if (byte === OPEN_BRACE && (this.#array === "first" || this.#array === "next")) {
      this.#array = "inItem";
      return this.#readItem(chunk, from, items);
    }
    if (byte === COMMA && this.#array === "after") {
      this.#array = "next";
      return from + 1;
    }
    if (byte === CLOSE_BRACKET && (this.#array === "first" || this.#array === "after")) {
      this.#keepEnvelope(chunk, from, from + 1);
      this.#array = "outside";
      return from + 1;
    }
    throw new MalformedError("Cannot read list: its items are not objects with commas between them");
  }

  #readItem(chunk: Uint8Array, from: number, items: Item[]): number {
    const guessed = this.#partial.length === 0 ? this.#boundary.end(chunk, from) : undefined;
    if (guessed !== undefined) {
      items.push(this.#itemOf(copyBytes(chunk, from, guessed.end), guessed.parsed));
      this.#array = "after";
      return guessed.end;
    }
    const end = this.#scanner.scan(chunk, from);
    const stop = end < 0 ? chunk.length : end;
    if (this.#partial.length + stop - from > MAX_OBJECT_BYTES)
      throw new MalformedError("Cannot read list: an item is larger than 16 MiB");
    if (end < 0) {
      this.#partial.append(chunk, from, stop);
      return stop;
    }
    items.push(this.#finishItem(chunk, from, end));
    this.#array = "after";
    return end;
  }

  #finishItem(chunk: Uint8Array, from: number, end: number): Item {
    let bytes: Uint8Array;
    if (this.#partial.length === 0) {
      bytes = copyBytes(chunk, from, end);
    } else {
      this.#partial.append(chunk, from, end);
      bytes = copyBytes(this.#partial.view());
      this.#partial.clear();
    }
    this.#boundary.learn(bytes);
    return this.#itemOf(bytes, parseText(bytes) as Parsed);
  }

  #itemOf(bytes: Uint8Array, parsed: Parsed): Item {
    this.#firstItem ??= {
      hasType: "kind" in parsed && "apiVersion" in parsed,
      kind: this.#arrayKey === "items" ? parsed["kind"] : undefined,
    };
    return { meta: metaOf(this.#arrayKey === "rows" ? parsed["object"] : parsed), bytes };
  }
}

/**
 * Where an item probably ends: before a comma and the bytes that the first
 * item began with. If what lies before parses, it is the item, for no proper
 * prefix of an object is an object; else its brackets are counted. Without a
 * JIT this is three times as fast as counting for all.
 *
 * Bounds: a search that finds nothing is not repeated in the same chunk, and
 * after some wrong guesses no more are made, so no input makes it quadratic.
 */
class BoundaryGuess {
  static readonly #startBytes = '{"metadata":{'.length;
  static readonly #maxMisses = 8;
  #needle: Uint8Array | undefined;
  #misses = 0;
  #isExhausted = false;

  newChunk(): void {
    this.#isExhausted = false;
  }

  learn(item: Uint8Array): void {
    this.#needle ??= joinBytes([Uint8Array.of(CLOSE_BRACE, COMMA), item.subarray(0, BoundaryGuess.#startBytes)]);
  }

  /** @returns the index after the item that begins at `chunk[from]`, and the item parsed; undefined when it takes counting. */
  end(chunk: Uint8Array, from: number): { readonly end: number; readonly parsed: Parsed } | undefined {
    if (this.#needle === undefined || this.#isExhausted || this.#misses >= BoundaryGuess.#maxMisses) return undefined;
    const found = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).indexOf(this.#needle, from);
    if (found < 0) {
      this.#isExhausted = true;
      return undefined;
    }
    try {
      const end = found + 1;
      return end - from > MAX_OBJECT_BYTES ? undefined : { end, parsed: parseText(chunk, from, end) as Parsed };
    } catch {
      this.#misses++;
      return undefined;
    }
  }
}

/** Whether the value is an object and no array. */
export function isParsed(value: unknown): value is Parsed {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The text, or "" for anything else. */
export function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/**
 * The metadata of a parsed object.
 *
 * @throws {MalformedError} if it has no name: it could be neither found again nor told from another.
 */
export function metaOf(object: unknown): ItemMeta {
  const metadata = isParsed(object) ? object["metadata"] : undefined;
  if (!isParsed(metadata) || textOf(metadata["name"]) === "")
    throw new MalformedError("Cannot read object: it has no metadata.name");
  return {
    namespace: textOf(metadata["namespace"]),
    name: textOf(metadata["name"]),
    uid: textOf(metadata["uid"]),
    resourceVersion: textOf(metadata["resourceVersion"]),
  };
}

/** The items were taken out as they came, so what is left is empty; `null` is how Go writes a nil slice. */
function isEmptyArray(value: unknown): boolean {
  return value === null || (Array.isArray(value) && value.length === 0);
}
