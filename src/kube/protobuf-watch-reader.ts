/**
 * Splits a protobuf watch stream into events.
 *
 *   frame       4 bytes length (big-endian), then a bare WatchEvent
 *   WatchEvent  1 type, 2 RawExtension{ 1 raw }; raw is an object in its k8s\0 envelope
 *   ObjectMeta  6 resourceVersion, 12 annotations (entries of 1 key, 2 value)
 *   Status      3 message, 4 reason, 6 code
 *
 * Source: apimachinery util/framer and meta/v1/generated.proto.
 */

import { ByteBuffer, copyBytes } from "./byte-buffer.ts";
import { MalformedError, type Shape, type WatchFrame, type WatchReader } from "./codec.ts";
import { itemKind } from "./item-kind.ts";
import { MAX_OBJECT_BYTES, protobufMetaOf } from "./protobuf-list-reader.ts";
import { type Field, fieldsOf, fieldText, type Opened, openEnvelope } from "./protobuf-wire.ts";

const LENGTH_BYTES = 4;

/** Reads a watch in protobuf. */
export class ProtobufWatchReader implements WatchReader {
  readonly #pending = new ByteBuffer();

  constructor(private readonly shape: Shape) {}

  /** Bytes of memory held: at most one frame and one chunk. */
  get bufferedBytes(): number {
    return this.#pending.capacity;
  }

  isBetweenFrames(): boolean {
    return this.#pending.length === 0;
  }

  push(chunk: Uint8Array): WatchFrame[] {
    const frames: WatchFrame[] = [];
    this.#pending.append(chunk);
    const bytes = this.#pending.view();
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const size = bytes[at]! * 0x1000000 + (bytes[at + 1]! << 16) + (bytes[at + 2]! << 8) + bytes[at + 3]!;
      if (size > MAX_OBJECT_BYTES) throw new MalformedError("Cannot read watch: an event is larger than 16 MiB");
      const start = at + LENGTH_BYTES;
      if (bytes.length - start < size) break;
      frames.push(this.#decode(bytes, start, start + size));
      at = start + size;
    }
    this.#pending.consume(at);
    return frames;
  }

  #decode(bytes: Uint8Array, from: number, to: number): WatchFrame {
    let type = "";
    let extension: Field | undefined;
    for (const field of fieldsOf(bytes, from, to)) {
      if (field.wireType !== 2) continue;
      if (field.number === 1) type = fieldText(bytes, field);
      else if (field.number === 2) extension = field;
    }
    const raw = extension && lastField(bytes, extension.start, extension.end, 1);
    if (raw === undefined) throw new MalformedError("Cannot read watch: an event without an object");
    const opened = openEnvelope(bytes, raw.start, raw.end);
    switch (type) {
      case "ADDED":
      case "MODIFIED":
      case "DELETED": {
        if (opened.kind !== itemKind(this.shape))
          throw new MalformedError("Cannot read watch: an object of another kind than the list's");
        const item = copyBytes(bytes, opened.start, opened.end);
        return { type, item: { meta: protobufMetaOf(item), bytes: item } };
      }
      case "BOOKMARK":
        return bookmarkOf(bytes, opened);
      case "ERROR":
        return errorOf(bytes, opened);
      default:
        throw new MalformedError("Cannot read watch: an event of an unknown type");
    }
  }
}

function lastField(bytes: Uint8Array, from: number, to: number, number: number): Field | undefined {
  let last: Field | undefined;
  for (const field of fieldsOf(bytes, from, to)) if (field.number === number && field.wireType === 2) last = field;
  return last;
}

function bookmarkOf(bytes: Uint8Array, { start, end }: Opened): WatchFrame {
  const metadata = lastField(bytes, start, end, 1);
  let resourceVersion = "";
  let isInitialEventsEnd = false;
  if (metadata !== undefined) {
    for (const field of fieldsOf(bytes, metadata.start, metadata.end)) {
      if (field.wireType !== 2) continue;
      if (field.number === 6) resourceVersion = fieldText(bytes, field);
      else if (field.number === 12 && isEndMark(bytes, field)) isInitialEventsEnd = true;
    }
  }
  if (resourceVersion === "") throw new MalformedError("Cannot read watch: a bookmark without a resourceVersion");
  return { type: "BOOKMARK", resourceVersion, isInitialEventsEnd };
}

function isEndMark(bytes: Uint8Array, { start, end }: Field): boolean {
  const key = lastField(bytes, start, end, 1);
  const value = lastField(bytes, start, end, 2);
  if (key === undefined || value === undefined) return false;
  return fieldText(bytes, key) === "k8s.io/initial-events-end" && fieldText(bytes, value) === "true";
}

function errorOf(bytes: Uint8Array, { kind, start, end }: Opened): WatchFrame {
  const status = { code: 500, reason: "", message: "" };
  if (kind !== "Status") return { type: "ERROR", ...status };
  for (const field of fieldsOf(bytes, start, end)) {
    if (field.number === 6 && field.wireType === 0) status.code = field.value;
    else if (field.wireType !== 2) continue;
    else if (field.number === 3) status.message = fieldText(bytes, field);
    else if (field.number === 4) status.reason = fieldText(bytes, field);
  }
  return { type: "ERROR", ...status };
}
