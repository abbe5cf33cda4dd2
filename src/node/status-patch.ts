/**
 * A patch of a pod's or node's status, as the API server would have applied it.
 *
 * What a status write cannot change is put back, and what the type could not
 * hold is refused, so that whoever reads the outcome may rely on its shape.
 */

import { parseExact, type Json } from "../kube/exact-json.ts";
import { StatusError } from "../kube/status-error.ts";
import { PatchError } from "../kube/patch-values.ts";
import { jsonMerge, strategicMerge } from "../kube/strategic-merge.ts";
import type { Fields } from "./pod-status.ts";

/** The object a status belongs to. */
export interface StatusTarget {
  readonly resource: "pods" | "nodes";
  /** "" for a node. */
  readonly namespace: string;
  readonly name: string;
}

/** A patch as it was sent. */
export interface Patch {
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** What a status write may change of metadata. */
const CHANGEABLE_METADATA: readonly string[] = ["labels", "annotations", "finalizers"];
const KINDS = { pods: "Pod", nodes: "Node" } as const;
const STRATEGIC = "application/strategic-merge-patch+json";
const MERGE = "application/merge-patch+json";

/**
 * The object after a patch of its status.
 *
 * @param held its metadata as it is read now: a patch that names a UID or resourceVersion means that object and no other.
 * @throws {StatusError} 409 for another UID or resourceVersion, 400 or 422 for a patch that is none or does not fit, 415 for an unknown patch type.
 */
export function patchedStatus(before: Fields, held: Fields, patch: Patch, target: StatusTarget): Fields {
  const after = patched(before, held, patch, target);
  const [mine, theirs] = [before["metadata"] as Fields, (after["metadata"] ?? {}) as Fields];
  const metadata: Record<string, Json> = { ...mine };
  for (const name of CHANGEABLE_METADATA) {
    if (theirs[name] === undefined) delete metadata[name];
    else metadata[name] = theirs[name];
  }
  const { status, ...rest } = before;
  return { ...rest, metadata, status: withOneTruth((after["status"] ?? status ?? {}) as Fields) };
}

function patched(before: Fields, held: Fields, patch: Patch, target: StatusTarget): Fields {
  const type = patch.contentType.split(";")[0]!.trim();
  if (type !== STRATEGIC && type !== MERGE)
    throw new StatusError({
      code: 415,
      reason: "UnsupportedMediaType",
      message: `Cannot apply a patch of type "${type.slice(0, 64)}" while the API server cannot be reached: only ${STRATEGIC} and ${MERGE}`,
    });
  try {
    const changes = parseExact(patch.body) as Fields;
    if (changes === null || typeof changes !== "object" || Array.isArray(changes))
      throw new PatchError("it is not a JSON object", 400);
    refuseOther((changes["metadata"] ?? {}) as Fields, held, target);
    const after = (
      type === MERGE ? jsonMerge(before, changes) : strategicMerge(before, changes, KINDS[target.resource])
    ) as Fields;
    refuseMisshapen(after);
    return after;
  } catch (error) {
    if (error instanceof StatusError) throw error;
    throw unfit(error, target);
  }
}

/** A patch that cannot be applied, as the API server says it. */
export function unfit(error: unknown, { resource, name }: StatusTarget): StatusError {
  return new StatusError(
    {
      ...(error instanceof PatchError && error.statusCode === 422
        ? { code: 422, reason: "Invalid" }
        : { code: 400, reason: "BadRequest" }),
      message: `Cannot patch ${resource} "${name}": ${error instanceof PatchError ? error.message : "the body is not JSON"}`,
    },
    { cause: error },
  );
}

/** Who names a UID or resourceVersion means that object and no other. @throws {StatusError} 409 */
export function refuseOther(asked: Fields, held: Fields, { resource, name }: StatusTarget): void {
  for (const [field, title] of [
    ["uid", "UID"],
    ["resourceVersion", "ResourceVersion"],
  ] as const) {
    const wanted = asked[field];
    if (wanted === undefined || wanted === null || wanted === "" || wanted === held[field]) continue;
    throw new StatusError({
      code: 409,
      reason: "Conflict",
      message: `Operation cannot be fulfilled on ${resource} "${name}": Precondition failed: ${title} in precondition: ${String(wanted).slice(0, 64)}, ${title} in object meta: ${String(held[field])}`,
    });
  }
}

/** The API server decodes the outcome into the type; what is read of it here must be what the type says. @throws {PatchError} */
export function refuseMisshapen({ metadata = {}, status = {} }: Fields): void {
  const isMap = (value: Json): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
  const isListOf = (value: Json | undefined, isItem: (item: Json) => boolean) =>
    value === undefined || value === null || (Array.isArray(value) && value.every(isItem));
  const isText = (value: Json) => typeof value === "string";
  const isMapOfTexts = (value: Json | undefined) =>
    value === undefined || value === null || (isMap(value) && Object.values(value).every(isText));
  if (!isMap(metadata)) throw new PatchError("metadata would not be an object");
  if (!isMap(status)) throw new PatchError("status would not be an object");
  for (const name of ["labels", "annotations"])
    if (!isMapOfTexts(metadata[name])) throw new PatchError(`metadata.${name} would not be a map of strings`);
  if (!isListOf(metadata["finalizers"], isText))
    throw new PatchError("metadata.finalizers would not be a list of strings");
  for (const name of ["podIPs", "conditions"])
    if (!isListOf(status[name], isMap)) throw new PatchError(`status.${name} would not be a list of objects`);
}

/** As the API server does after merging: where podIPs does not begin with podIP, podIP stands alone. */
function withOneTruth(status: Fields): Fields {
  const { podIP, podIPs } = status;
  const [first] = (podIPs ?? []) as readonly Fields[];
  if (typeof podIP !== "string" || podIP === "" || first === undefined || first["ip"] === podIP) return status;
  return { ...status, podIPs: [{ ip: podIP }] };
}
