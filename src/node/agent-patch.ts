/**
 * What a write of a node agent changes, where it changes nothing but labels,
 * annotations and conditions.
 *
 *   PATCH   strategic merge, merge, JSON patch: applied to the object as it
 *           reads now, then the outcome is compared with it
 *   PUT     compared with the object that its resourceVersion names: what was
 *           last shown to this caller. In protobuf, which cannot be compared
 *           whole, labels and annotations count, of status writes alone, and
 *           phase and conditions must be as they were shown
 *
 * What the API server would put back is put back (a status write leaves the
 * spec, any other leaves the status). Whatever else would change makes it
 * nothing that a cut may answer: 503. Server-side apply too: who owns which
 * field is the API server's to say.
 *
 * Of a PUT of a status, fields that are merely missing are not taken for
 * deletions: an agent drops what its release does not know.
 */

import { parseExact, type Json } from "../kube/exact-json.ts";
import { jsonPatched } from "../kube/json-patch.ts";
import { readOutline } from "../kube/protobuf-object.ts";
import { StatusError, unavailable } from "../kube/status-error.ts";
import { PatchError } from "../kube/patch-values.ts";
import { PROTOBUF_TYPE } from "../kube/representation.ts";
import { jsonMerge, strategicMerge } from "../kube/strategic-merge.ts";
import type { Change } from "./overlay.ts";
import { conditionsOf, valueOf } from "./overlay.ts";
import type { Fields } from "./pod-status.ts";
import { refuseMisshapen, refuseOther, unfit, type StatusTarget } from "./status-patch.ts";

/** A write of an agent. */
export interface AgentWrite extends StatusTarget {
  readonly verb: "patch" | "update";
  readonly subresource: "" | "status";
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** One thing that becomes another; null stands for none. */
export type Wanted = Pick<Change, "field" | "key" | "now">;

const KINDS = { pods: "Pod", nodes: "Node" } as const;
/** As the API server bounds all annotations of an object. */
const MAX_ANNOTATIONS_BYTES = 256 * 1024;
const NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const PREFIX = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
/** The API server's own, whatever a client sends of it. */
const SERVERS_METADATA: ReadonlySet<string> = new Set(["managedFields", "resourceVersion", "generation", "selfLink"]);

/**
 * What the write changes of an object as it is shown.
 *
 * @param served the object as everybody reads it now.
 * @param given as it was shown to this caller where that is another text of it; a PUT may be made from either.
 * @throws {StatusError} 409 for another UID or resourceVersion, 400, 415 or 422 for what the API server would refuse, 503 for what it alone can judge.
 */
export function changesOf(write: AgentWrite, served: Fields, given: Fields | undefined): Wanted[] {
  const changes = write.verb === "update" ? updated(write, served, given) : patched(write, served, given);
  for (const { field, key, now } of changes) refuseUnfit(write, field, key, now);
  return changes;
}

function patched(write: AgentWrite, served: Fields, given: Fields | undefined): Wanted[] {
  const { contentType, body, resource } = write;
  try {
    const before = { kind: KINDS[resource], apiVersion: "v1", ...served };
    const patch = contentType === "application/apply-patch+yaml" ? undefined : parseExact(body);
    switch (contentType) {
      case "application/json-patch+json":
        return compared(write, before, jsonPatched(before, patch!) as Fields, { isWhole: true });
      case "application/strategic-merge-patch+json":
      case "application/merge-patch+json": {
        if (!isMap(patch)) throw new PatchError("it is not a JSON object", 400);
        const asked = isMap(patch["metadata"]) ? patch["metadata"] : {};
        refuseOther(asked, heldBy(asked, served, given), write);
        const { resourceVersion: _, ...metadata } = asked;
        const changes = isMap(patch["metadata"]) ? { ...patch, metadata } : patch;
        const isMerge = contentType === "application/merge-patch+json";
        const after = isMerge ? jsonMerge(before, changes) : strategicMerge(before, changes, KINDS[resource]);
        return compared(write, before, after as Fields, { isWhole: true });
      }
      case "application/apply-patch+yaml":
        throw notOurs(write, "server-side apply needs to know who owns each field");
      default:
        throw unsupported(contentType);
    }
  } catch (error) {
    throw error instanceof StatusError ? error : unfit(error, write);
  }
}

function updated(write: AgentWrite, served: Fields, given: Fields | undefined): Wanted[] {
  const { contentType, body } = write;
  if (contentType === PROTOBUF_TYPE) return updatedInProtobuf(write, served, given);
  if (contentType !== "application/json") throw unsupported(contentType);
  let after: Fields;
  try {
    after = parseExact(body) as Fields;
    if (!isMap(after) || !isMap(after["metadata"])) throw new PatchError("it is not an object", 400);
  } catch (error) {
    throw unfit(error, write);
  }
  const before = baseOf(write, after["metadata"] as Fields, served, given);
  try {
    return compared(write, { kind: KINDS[write.resource], apiVersion: "v1", ...before }, after, { isWhole: false });
  } catch (error) {
    throw error instanceof StatusError ? error : unfit(error, write);
  }
}

function updatedInProtobuf(write: AgentWrite, served: Fields, given: Fields | undefined): Wanted[] {
  let after: ReturnType<typeof readOutline>;
  try {
    after = readOutline(write.body);
    if (after.kind !== KINDS[write.resource]) throw new PatchError(`it is no ${KINDS[write.resource]}`, 400);
  } catch (error) {
    throw unfit(error, write);
  }
  const { uid, resourceVersion, name } = after;
  const before = baseOf(write, { uid, resourceVersion, name }, served, given);
  if (write.subresource !== "status") throw notOurs(write, "an object in protobuf cannot be compared");
  const phase = (before["status"] as Fields | undefined)?.["phase"] ?? "";
  const conditions = conditionsOf(before).map((one) => `${String(one["type"])}=${String(one["status"])}`);
  if (after.phase !== phase || after.conditions.join() !== conditions.join())
    throw notOurs(write, "it changes a status in protobuf");
  return (["labels", "annotations"] as const).flatMap((field) =>
    differing(field, (before["metadata"] as Fields)[field], Object.fromEntries(after[field])),
  );
}

/** The text of the object that a PUT was made from. */
function baseOf(write: AgentWrite, sent: Fields, served: Fields, given: Fields | undefined): Fields {
  const { resource, name } = write;
  if (sent["name"] !== name)
    throw new StatusError({
      code: 400,
      reason: "BadRequest",
      message: `the name of the object (${String(sent["name"]).slice(0, 64)}) does not match the name on the URL (${name})`,
    });
  const version = sent["resourceVersion"] ?? "";
  if (version === "") throw notOurs(write, "it names no resourceVersion, and what it was made from is not known");
  const { resourceVersion: _, ...rest } = sent;
  refuseOther(rest, served["metadata"] as Fields, write);
  const base = [served, given].find((one) => versionOf(one) === version);
  if (base !== undefined) return base;
  throw new StatusError({
    code: 409,
    reason: "Conflict",
    message: `Operation cannot be fulfilled on ${resource} "${name}": the object has been modified; please apply your changes to the latest version and try again`,
  });
}

/** The metadata that a precondition is held against: who was shown another text of the object means that one. */
function heldBy(asked: Fields, served: Fields, given: Fields | undefined): Fields {
  const version = asked["resourceVersion"];
  const isGivens = version !== undefined && version === versionOf(given);
  return { ...(served["metadata"] as Fields), ...(isGivens ? { resourceVersion: version } : {}) };
}

/** @param isWhole what is missing after is deleted; false for a PUT, whose sender may not know every field. */
function compared(write: AgentWrite, before: Fields, after: Fields, { isWhole }: { isWhole: boolean }): Wanted[] {
  if (!isMap(after)) throw new PatchError("it leaves no object", 422);
  refuseMisshapen(after);
  const isStatus = write.subresource === "status";
  const isSame = (mine: Json | undefined, theirs: Json | undefined) =>
    isWhole || !isStatus ? isEqual(mine, theirs) : isPartOf(theirs, mine);
  const metadata = (after["metadata"] ?? {}) as Fields;
  for (const [name, value] of Object.entries({ ...(before["metadata"] as Fields), ...metadata })) {
    if (name === "labels" || name === "annotations" || SERVERS_METADATA.has(name)) continue;
    const held = (before["metadata"] as Fields)[name];
    if (held !== undefined || value !== null)
      if (!isSame(held, metadata[name])) throw notOurs(write, `it changes metadata.${name}`);
  }
  if (!isStatus && !isEqual(before["spec"], after["spec"])) throw notOurs(write, "it changes the spec");
  const changes = (["labels", "annotations"] as const).flatMap((field) =>
    differing(field, (before["metadata"] as Fields)[field], metadata[field]),
  );
  if (!isStatus) return changes;
  const { conditions: _, ...held } = (before["status"] ?? {}) as Fields;
  const { conditions: __, ...left } = (after["status"] ?? {}) as Fields;
  if (!isSame(held, left)) throw notOurs(write, "it changes more of the status than conditions");
  const types = (object: Fields) => conditionsOf(object).map(({ type }) => String(type));
  const keys = new Set([...types(before), ...types(after)]);
  for (const key of keys) {
    const was = valueOf(before, { field: "conditions", key });
    const now = valueOf(after, { field: "conditions", key });
    const isKept = isEqual(was, now) || (!isWhole && now !== null && isPartOf(now, was));
    if (!isKept) changes.push({ field: "conditions", key, now });
  }
  return changes;
}

function differing(field: "labels" | "annotations", before: Json | undefined, after: Json | undefined): Wanted[] {
  const [was, now] = [
    new Map(Object.entries((before ?? {}) as Fields)),
    new Map(Object.entries((after ?? {}) as Fields)),
  ];
  return [...new Set([...was.keys(), ...now.keys()])]
    .filter((key) => was.get(key) !== now.get(key))
    .map((key) => ({ field, key, now: now.get(key) ?? null }));
}

/** What the API server would not take of a label or annotation. @throws {StatusError} 422 */
function refuseUnfit({ resource, name }: StatusTarget, field: Change["field"], key: string, now: Json): void {
  if (field === "conditions") return;
  const [last, prefix, ...more] = key.split("/").reverse();
  const isKey = more.length === 0 && NAME.test(last!) && (prefix === undefined || PREFIX.test(prefix));
  const isValue =
    now === null ||
    (field === "labels" ? now === "" || NAME.test(String(now)) : String(now).length <= MAX_ANNOTATIONS_BYTES);
  if (isKey && isValue) return;
  throw new StatusError({
    code: 422,
    reason: "Invalid",
    message: `${KINDS[resource]} "${name}" is invalid: metadata.${field}: Invalid value: the key or value is none`,
  });
}

function notOurs({ verb, resource, name }: AgentWrite, why: string): StatusError {
  return unavailable(
    `Cannot ${verb} ${resource} "${name}": ${why}, and the API server cannot be reached; of agents only labels, annotations and conditions are taken meanwhile`,
  );
}

function unsupported(contentType: string): StatusError {
  return new StatusError({
    code: 415,
    reason: "UnsupportedMediaType",
    message: `Cannot take a body of type "${contentType.slice(0, 64)}" while the API server cannot be reached`,
  });
}

function versionOf(object: Fields | undefined): Json | undefined {
  return (object?.["metadata"] as Fields | undefined)?.["resourceVersion"];
}

function isMap(value: Json | undefined): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEqual(left: Json | undefined, right: Json | undefined): boolean {
  return Bun.deepEquals(left ?? null, right ?? null);
}

/** Whether a value says nothing that the other does not say too. */
function isPartOf(part: Json | undefined, whole: Json | undefined): boolean {
  if (part === undefined || part === null) return true;
  if (isMap(part)) return isMap(whole) && Object.entries(part).every(([key, value]) => isPartOf(value, whole[key]));
  if (Array.isArray(part))
    return (
      Array.isArray(whole) && part.length === whole.length && part.every((value, at) => isPartOf(value, whole[at]))
    );
  return part === whole;
}
