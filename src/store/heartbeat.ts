/**
 * Which change of an object is a heartbeat and nothing more.
 *
 * A kubelet writes its node's status every five minutes to say that it is
 * alive. Every copy of the node would be written to the card for it, and after
 * a power cut nobody misses the minutes: the watch goes on from the older row.
 */

import type { Item } from "../kube/codec.ts";

/** What a heartbeat changes: the version, the conditions' times and those of the field managers. */
const BEATS = /"(?:resourceVersion|lastHeartbeatTime)":"[^"]*"|"time":"[^"]*"(?=,"fieldsType")/g;
const BRACE = 0x7b;

/** Whether a later state of an object differs from an earlier one by its heartbeat alone; false where that cannot be told. */
export function isHeartbeat(before: Item | undefined, after: Item): boolean {
  if (before === undefined || before.meta.uid !== after.meta.uid) return false;
  if (before.bytes[0] !== BRACE || after.bytes[0] !== BRACE) return false;
  return still(before) === still(after);
}

function still({ bytes }: Item): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8").replace(BEATS, "");
}
