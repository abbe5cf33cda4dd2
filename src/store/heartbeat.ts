/**
 * Which change of a Node is a heartbeat and nothing more.
 *
 * A kubelet writes its node's status every five minutes to say that it is
 * alive. Every copy of the node would be written to the card for it, and after
 * a power cut nobody misses the minutes: the watch goes on from the older row.
 */

import { joinBytes } from "../kube/byte-buffer.ts";
import { MalformedError, type Item } from "../kube/codec.ts";
import { fieldsOf } from "../kube/protobuf-wire.ts";

/**
 * What a heartbeat changes: the version, the conditions' times, and the field
 * managers, whose times move and who stand in the order of their times. What a
 * manager really changed shows elsewhere in the object.
 */
const BEATS: ReadonlySet<string> = new Set(["resourceVersion", "managedFields", "lastHeartbeatTime"]);
/** The same by protobuf's numbers; `true` is such a field, anything else a message that may hold one. */
const BEAT_FIELDS: Beats = { 1: { 6: true, 17: true }, 3: { 4: { 3: true } } };
const BRACE = 0x7b;
/** No field has the number 0, so it can end a message. */
const END = Uint8Array.of(0);

interface Beats {
  readonly [number: number]: true | Beats;
}

/**
 * Whether a later state of a Node differs from an earlier one by its heartbeat
 * alone; false where that cannot be told.
 *
 * Source: k8s.io/api/core/v1 and k8s.io/apimachinery/pkg/apis/meta/v1, generated.proto.
 */
export function isHeartbeat(before: Item | undefined, after: Item): boolean {
  if (before === undefined || before.meta.uid !== after.meta.uid) return false;
  const isJson = after.bytes[0] === BRACE;
  if (isJson !== (before.bytes[0] === BRACE)) return false;
  try {
    return isJson
      ? Bun.deepEquals(still(before), still(after))
      : Buffer.compare(stillMessage(before.bytes), stillMessage(after.bytes)) === 0;
  } catch (error) {
    if (error instanceof MalformedError || error instanceof SyntaxError) return false;
    throw error;
  }
}

/** Numbers that a double cannot tell apart stand nowhere in a Node that kubelet writes. */
function still({ bytes }: Item): unknown {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  return JSON.parse(text, (name, value: unknown) => (BEATS.has(name) ? undefined : value));
}

function stillMessage(bytes: Uint8Array): Uint8Array {
  return joinBytes([...stillParts(bytes, 0, bytes.length, BEAT_FIELDS)]);
}

function* stillParts(bytes: Uint8Array, from: number, to: number, beats: Beats): Generator<Uint8Array, void> {
  for (const field of fieldsOf(bytes, from, to)) {
    const inner = beats[field.number];
    if (inner === true) continue;
    if (inner === undefined || field.wireType !== 2) {
      yield bytes.subarray(field.at, field.end);
      continue;
    }
    yield Uint8Array.of(field.number);
    yield* stillParts(bytes, field.start, field.end, inner);
    yield END;
  }
}
