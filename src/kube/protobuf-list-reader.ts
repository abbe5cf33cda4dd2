/**
 * Splits a protobuf list as it arrives.
 *
 *   k8s\0  Unknown{ 1 TypeMeta, 2 raw, 3 contentEncoding, 4 contentType }
 *   raw    1 ListMeta{ 2 resourceVersion, 3 continue }, 2 items (repeated)
 *
 * All list kinds of Kubernetes are laid out so, and the metadata of every item
 * is its field 1 (name=1, namespace=3, uid=5, resourceVersion=6); so no schema
 * is needed. Only whole fields are looked at: the reader waits until a field's
 * bytes are there, holds at most one, and allocates for what came, not for
 * what a length claims.
 *
 * Invariant: `end` returns only for a list that arrived whole.
 * Source: meta/v1/generated.proto; checked over all registered kinds.
 */

import { ByteBuffer, copyBytes } from "./byte-buffer.ts";
import { type Item, type ItemMeta, type ListHead, type ListReader, MalformedError } from "./codec.ts";
import { fieldsOf, fieldText, MAGIC, readTypeMeta, readVarint } from "./protobuf-wire.ts";

/** One object's bound: etcd takes 1.5 MiB by default, and operators raise it by a few times at most. */
export const MAX_OBJECT_BYTES = 16 * 1024 * 1024;
const MAX_ENVELOPE_BYTES = 1024 * 1024;

/** A field's header, read; its `size` bytes follow at `next`. */
interface FieldHead {
  readonly number: number;
  readonly wireType: number;
  readonly next: number;
  readonly size: number;
}

/** Reads a LIST in protobuf: plain objects or PartialObjectMetadata. */
export class ProtobufListReader implements ListReader {
  readonly #pending = new ByteBuffer();
  #state: "magic" | "envelope" | "list" = "magic";
  #hasList = false;
  /** Bytes of the list message that are still to come. */
  #listLeft = 0;
  #type = { apiVersion: "", kind: "" };
  #resourceVersion = "";
  #continueToken = "";

  /** Bytes of memory held: at most one item and one chunk. */
  get bufferedBytes(): number {
    return this.#pending.capacity;
  }

  push(chunk: Uint8Array): Item[] {
    const items: Item[] = [];
    this.#pending.append(chunk);
    const bytes = this.#pending.view();
    let at = 0;
    for (;;) {
      const next = this.#state === "magic" ? this.#readMagic(bytes) : this.#readField(bytes, at, items);
      if (next === undefined) break;
      at = next;
    }
    this.#pending.consume(at);
    return items;
  }

  end(): ListHead {
    if (!this.#hasList || this.#state !== "envelope" || this.#pending.length > 0)
      throw new MalformedError("Cannot read list: it ends early");
    const { apiVersion, kind } = this.#type;
    if (!kind.endsWith("List") || apiVersion === "")
      throw new MalformedError(`Cannot read list: a body of kind "${kind.slice(0, 100)}" is none`);
    return {
      shape: { listKind: kind, apiVersion, isBare: true },
      resourceVersion: this.#resourceVersion,
      continueToken: this.#continueToken,
    };
  }

  #readMagic(bytes: Uint8Array): number | undefined {
    if (!MAGIC.every((byte, i) => i >= bytes.length || bytes[i] === byte))
      throw new MalformedError("Cannot read list: no k8s envelope");
    if (bytes.length < MAGIC.length) return undefined;
    this.#state = "envelope";
    return MAGIC.length;
  }

  /** @returns the index after what was read, or undefined when more bytes are needed. */
  #readField(bytes: Uint8Array, at: number, items: Item[]): number | undefined {
    if (this.#state === "list" && this.#listLeft === 0) this.#state = "envelope";
    const head = fieldHead(bytes, at);
    if (head === undefined) return undefined;
    if (this.#state === "envelope") return this.#readEnvelopeField(bytes, head);
    if (head.next - at + head.size > this.#listLeft)
      throw new MalformedError("Cannot read list: a field is longer than the list");
    const next = this.#readListField(bytes, head, items);
    if (next !== undefined) this.#listLeft -= next - at;
    return next;
  }

  #readEnvelopeField(bytes: Uint8Array, { number, wireType, next, size }: FieldHead): number | undefined {
    if (number === 2 && wireType === 2) {
      if (this.#hasList) throw new MalformedError("Cannot read list: it has two bodies");
      this.#hasList = true;
      this.#listLeft = size;
      this.#state = "list";
      return next;
    }
    if (size > MAX_ENVELOPE_BYTES) throw new MalformedError("Cannot read list: its envelope is larger than 1 MiB");
    const end = next + size;
    if (end > bytes.length) return undefined;
    if (number === 1 && wireType === 2) this.#type = readTypeMeta(bytes, next, end);
    else if (number === 3 && size > 0) throw new MalformedError("Cannot read list: it has a content encoding");
    return end;
  }

  #readListField(bytes: Uint8Array, { number, wireType, next, size }: FieldHead, items: Item[]): number | undefined {
    const isItem = number === 2 && wireType === 2;
    if (size > (isItem ? MAX_OBJECT_BYTES : MAX_ENVELOPE_BYTES))
      throw new MalformedError("Cannot read list: a field is too long");
    const end = next + size;
    if (end > bytes.length) return undefined;
    if (isItem) {
      const item = copyBytes(bytes, next, end);
      items.push({ meta: protobufMetaOf(item), bytes: item });
    } else if (number === 1 && wireType === 2) {
      for (const field of fieldsOf(bytes, next, end)) {
        if (field.wireType !== 2) continue;
        if (field.number === 2) this.#resourceVersion = fieldText(bytes, field);
        else if (field.number === 3) this.#continueToken = fieldText(bytes, field);
      }
    }
    return end;
  }
}

/** The header at `bytes[at]`, or undefined when not all of it is there. A varint's own bytes count as read. */
function fieldHead(bytes: Uint8Array, at: number): FieldHead | undefined {
  const tag = readVarint(bytes, at);
  if (tag === undefined) return undefined;
  const wireType = tag.value % 8;
  const number = Math.floor(tag.value / 8);
  if (number < 1) throw new MalformedError("Cannot read list: field number 0");
  if (wireType === 1) return { number, wireType, next: tag.next, size: 8 };
  if (wireType === 5) return { number, wireType, next: tag.next, size: 4 };
  if (wireType !== 0 && wireType !== 2) throw new MalformedError(`Cannot read list: wire type ${wireType}`);
  const value = readVarint(bytes, tag.next);
  if (value === undefined) return undefined;
  return { number, wireType, next: value.next, size: wireType === 2 ? value.value : 0 };
}

/**
 * The metadata of a bare message.
 *
 * @throws {MalformedError} if its fields do not fill it, or it has no name.
 */
export function protobufMetaOf(item: Uint8Array): ItemMeta {
  const meta = { namespace: "", name: "", uid: "", resourceVersion: "" };
  for (const outer of fieldsOf(item)) {
    if (outer.number !== 1 || outer.wireType !== 2) continue;
    for (const field of fieldsOf(item, outer.start, outer.end)) {
      if (field.wireType !== 2) continue;
      if (field.number === 1) meta.name = fieldText(item, field);
      else if (field.number === 3) meta.namespace = fieldText(item, field);
      else if (field.number === 5) meta.uid = fieldText(item, field);
      else if (field.number === 6) meta.resourceVersion = fieldText(item, field);
    }
  }
  if (meta.name === "") throw new MalformedError("Cannot read object: it has no metadata.name");
  return meta;
}
