/**
 * A patch of the node's own status, as it must go up so that the node stands
 * at its place.
 *
 * Whoever wrote the patch has read the true addresses and patches those. So it
 * is applied to the truth, and what comes of it is shown and written whole:
 *
 *   strategic merge   addresses [..., {"$patch": "replace"}]   as kubelet does: the merge key, type, is not unique
 *   merge             addresses [...]
 *   JSON patch        its operations on addresses and port give way to one each at the end
 *   apply             goes as it is: two addresses of one type cannot be applied
 *
 * A patch that says nothing of where the node is goes as it is, unless the node
 * is not shown as it should be: then it takes that along.
 */

import { type Json, parseExact, rewritten, writeExact } from "./exact-json.ts";
import { jsonPatched } from "./json-patch.ts";
import type { NodeAddress, Place } from "./place.ts";
import { type JsonFields, fieldsIn, isFields, whereIn } from "./placed-json.ts";
import { PLACE_ANNOTATION, showing, type NodeEdit, type Whereabouts } from "./placed-node.ts";
import { jsonMerge, strategicMerge } from "./strategic-merge.ts";

/** What is known of the node that a patch is for. */
export interface PatchedNode {
  /** Undefined: it was not seen yet. */
  readonly truth: Whereabouts | undefined;
  readonly place: Place | undefined;
  /** It stands there otherwise than it should. */
  readonly isAstray: boolean;
  /** It is not as its kubelet wrote it. */
  readonly isShown: boolean;
  /** Of any kind. */
  readonly hasAnnotations: boolean;
  /** Ours among them. */
  readonly hasOurs: boolean;
}

const ADDRESSES = "/status/addresses";
const ENDPOINTS = "/status/daemonEndpoints";
const REPLACE: Json = { $patch: "replace" };
const ORDER = "$setElementOrder/addresses";

/**
 * The patch as it goes up.
 *
 * @param contentType without parameters.
 * @returns the same bytes where nothing is to be changed; undefined when it cannot be told what would have to be.
 * @throws {MalformedError} {PatchError} for what is no patch or does not fit: the API server is the one to refuse it.
 */
export function placedPatch(contentType: string, body: Uint8Array, node: PatchedNode): Uint8Array | undefined {
  switch (contentType) {
    case "application/strategic-merge-patch+json":
      return placedMerge(body, node, true);
    case "application/merge-patch+json":
      return placedMerge(body, node, false);
    case "application/json-patch+json":
      return placedOperations(body, node);
    default:
      return undefined;
  }
}

function placedMerge(body: Uint8Array, node: PatchedNode, isStrategic: boolean): Uint8Array | undefined {
  const patch = parseExact(body);
  if (!isFields(patch)) return body;
  const status = patch["status"];
  const annotations = fieldsIn(patch["metadata"])["annotations"];
  if ([status, annotations].some((part) => part === null || Object.hasOwn(fieldsIn(part), "$patch"))) return undefined;
  const touched = touchedIn(fieldsIn(status));
  if (Object.keys(touched).length === 0 && !node.isAstray) return body;
  const truth = truthAfter(touched, node.truth, isStrategic);
  if (truth === undefined) return undefined;
  const edit = editFor(truth, node);
  if (edit === undefined) return body;
  return rewritten(body, patch, withEdit(patch, edit, isStrategic));
}

/** The parts of a status that say where the node is. */
function touchedIn(status: JsonFields): JsonFields {
  return Object.fromEntries(
    ["addresses", "daemonEndpoints", ORDER]
      .filter((key) => Object.hasOwn(status, key))
      .map((key) => [key, status[key]!]),
  );
}

/** A list that replaces all needs nothing before it. */
function truthAfter(
  touched: JsonFields,
  truth: Whereabouts | undefined,
  isStrategic: boolean,
): Whereabouts | undefined {
  const { addresses } = touched;
  const isWhole =
    Array.isArray(addresses) &&
    (!isStrategic || (addresses as readonly Json[]).some((one) => fieldsIn(one)["$patch"] === "replace"));
  if (truth === undefined && !(isWhole && whereIn(touched).port !== 0)) return undefined;
  const before = { status: statusOf(truth ?? { addresses: [], port: 0 }) };
  const after = isStrategic
    ? strategicMerge(before, { status: touched }, "Node")
    : jsonMerge(before, { status: touched });
  return whereIn(fieldsIn(after)["status"]);
}

function statusOf({ addresses, port }: Whereabouts): JsonFields {
  return { addresses: addresses.map(entryOf), daemonEndpoints: { kubeletEndpoint: { Port: port } } };
}

/** What the node is written with; undefined when the patch may go as it is. */
function editFor(truth: Whereabouts, node: PatchedNode): NodeEdit | undefined {
  const edit = showing(truth, node.place);
  if (edit.where !== undefined) return edit;
  return node.isShown ? { where: truth, annotation: null } : undefined;
}

function withEdit(patch: JsonFields, { where, annotation }: NodeEdit, isStrategic: boolean): JsonFields {
  const { addresses, port } = where!;
  const { [ORDER]: _, ...status } = fieldsIn(patch["status"]);
  const endpoints = fieldsIn(status["daemonEndpoints"]);
  const metadata = fieldsIn(patch["metadata"]);
  return {
    ...patch,
    metadata: {
      ...metadata,
      annotations: { ...fieldsIn(metadata["annotations"]), [PLACE_ANNOTATION]: annotation ?? null },
    },
    status: {
      ...status,
      addresses: [...addresses.map(entryOf), ...(isStrategic ? [REPLACE] : [])],
      daemonEndpoints: { ...endpoints, kubeletEndpoint: { ...fieldsIn(endpoints["kubeletEndpoint"]), Port: port } },
    },
  };
}

function placedOperations(body: Uint8Array, node: PatchedNode): Uint8Array | undefined {
  const patch = parseExact(body);
  if (!Array.isArray(patch)) return body;
  const operations = patch as readonly Json[];
  const isOurs = (operation: Json) => pathsOf(operation).some(isPlaces);
  if (operations.some((operation) => pathsOf(operation).some((path) => path === "" || path === "/status")))
    return undefined;
  const ours = operations.filter(isOurs);
  if (ours.length === 0 && !node.isAstray) return body;
  if (node.truth === undefined || !ours.every((operation) => pathsOf(operation).every(isPlaces))) return undefined;
  const after = jsonPatched({ status: statusOf(node.truth) }, ours);
  const edit = editFor(whereIn(fieldsIn(after)["status"]), node);
  if (edit === undefined) return body;
  const others = operations.filter((operation) => !isOurs(operation));
  return Buffer.from(writeExact([...others, ...operationsOf(edit, node)]));
}

function operationsOf({ where, annotation }: NodeEdit, { hasOurs, hasAnnotations }: PatchedNode): Json[] {
  const { addresses, port } = where!;
  const path = `/metadata/annotations/${PLACE_ANNOTATION.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  // What is removed must be there; an added null would be refused.
  const put: Json[] = typeof annotation === "string" ? [{ op: "add", path, value: annotation }] : [];
  const map: Json[] =
    put.length > 0 && !hasAnnotations ? [{ op: "add", path: "/metadata/annotations", value: {} }] : [];
  const remove: Json[] = annotation === null && hasOurs ? [{ op: "remove", path }] : [];
  return [
    ...map,
    ...put,
    ...remove,
    { op: "add", path: ADDRESSES, value: addresses.map(entryOf) },
    { op: "add", path: ENDPOINTS, value: { kubeletEndpoint: { Port: port } } },
  ];
}

function pathsOf(operation: Json): string[] {
  const { path, from } = fieldsIn(operation);
  return [path, from].filter((one): one is string => typeof one === "string");
}

function isPlaces(path: string): boolean {
  return [ADDRESSES, ENDPOINTS].some((root) => path === root || path.startsWith(`${root}/`));
}

function entryOf({ type, address }: NodeAddress): Json {
  return { type, address };
}
