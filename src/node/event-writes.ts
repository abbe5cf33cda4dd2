/**
 * Events while cut: 201, and into the ring.
 *
 * The node's own are taken; another's only into a namespace where the API
 * server has let it write events with the same verb, and has not refused it
 * since: whatever goes up later is judged there anyway, but a place in the ring
 * is worth something.
 */

import { betweenNow } from "../base/asked.ts";
import { parseExact, writeExact } from "../kube/exact-json.ts";
import { StatusError } from "../kube/status-error.ts";
import type { RequestInfo } from "../front/request-info.ts";
import type { EventRing } from "./event-ring.ts";
import type { Right, SeenRights } from "./seen-rights.ts";
import { requireObject, answerWith, type Answer, type Write, type WriteRow } from "./write.ts";

interface EventParts {
  readonly events: EventRing;
  readonly rights: SeenRights;
}

/** The row of an event. */
export function eventRow({ events, rights }: EventParts, write: Write): WriteRow {
  const { exchange, info, caller, contentType, body } = write;
  const isPatch = info.verb === "patch";
  const takesJson = exchange.accepted.some(({ format }) => format === "json");
  const right = rightOf(info);
  const asked = betweenNow();
  const take = () => {
    if (!isPatch) requireObject("event", { contentType, body });
    // The patched event itself may never have been here: what is known of it is its name and the change.
    const answer = isPatch ? patchedEvent(info, body) : { contentType, body };
    const isTaken = events.push({
      principal: caller.principal,
      method: isPatch ? "PATCH" : "POST",
      target: exchange.target,
      contentType: exchange.header("content-type") ?? "application/json",
      body,
    });
    if (!isTaken) throw new StatusError({ code: 413, reason: "RequestEntityTooLarge", message: "Event too large" });
    answerWith(exchange, isPatch ? 200 : 201, answer);
  };
  const isAllowed = () => caller.nodeName !== undefined || rights.has(caller.principal, right);
  return {
    fallback: { givesWay: "storage", find: () => (isAllowed() && (!isPatch || takesJson) ? take : undefined) },
    ...(caller.nodeName === undefined
      ? { heard: (status: number) => rights.heard(caller.principal, right, status, asked) }
      : {}),
  };
}

function rightOf({ verb, group, namespace }: RequestInfo): Right {
  return { verb, group, resource: "events", subresource: "", namespace };
}

function patchedEvent({ group, version, namespace, name }: RequestInfo, patch: Uint8Array): Answer {
  let changes: { metadata?: object };
  try {
    changes = parseExact(patch) as { metadata?: object };
    if (changes === null || typeof changes !== "object") throw new TypeError("not an object");
  } catch (cause) {
    throw new StatusError(
      { code: 400, reason: "BadRequest", message: `Cannot patch events "${name}": the body is not a JSON object` },
      { cause },
    );
  }
  const apiVersion = group === "" ? version : `${group}/${version}`;
  const event = { kind: "Event", apiVersion, ...changes, metadata: { ...changes.metadata, name, namespace } };
  return { contentType: "application/json", body: Buffer.from(writeExact(event)) };
}
