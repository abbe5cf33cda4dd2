/**
 * Addresses and readiness of known pods, written into kept endpoints.
 *
 * After a reboot while cut the pods of this node have other addresses and no
 * controller says so. An endpoint is this node's pod's when its targetRef
 * carries the pod's UID; nothing else of the object is touched: every other
 * field keeps its bytes and its place.
 *
 *   EndpointSlice     metadata = 1, endpoints = 2, ports = 3, addressType = 4
 *   Endpoint          addresses = 1, conditions = 2, targetRef = 4
 *   conditions        ready = 1, serving = 2, terminating = 3
 *   Endpoints         metadata = 1, subsets = 2
 *   EndpointSubset    addresses = 1, notReadyAddresses = 2, ports = 3
 *   EndpointAddress   ip = 1, targetRef = 2
 *   ObjectReference   kind = 1, uid = 4
 *
 * As the controller has it: `serving` is the pod's readiness; `ready` is the
 * same, but never of an endpoint that is terminating: a pod that somebody has
 * deleted gets no new connections because its node was started anew. One that
 * is ready though not serving, or though terminating, belongs to a Service that
 * publishes addresses which are not ready; its readiness stays as it is.
 */

import { joinBytes } from "./byte-buffer.ts";
import { parseExact, rewritten as rewrittenJson } from "./exact-json.ts";
import { fieldsOf, fieldText, message, text, varint, type Field } from "./protobuf-wire.ts";

/** What the node knows of one of its own pods. */
export interface LocalPod {
  readonly uid: string;
  /** All of its addresses now, the first is primary; empty when it has none. */
  readonly ips: readonly string[];
  /** Its Ready condition now; false when it is Failed or Succeeded. */
  readonly isReady: boolean;
}

/** The two kinds that hold a Service's addresses. */
export type EndpointResource = "endpointslices" | "endpoints";

type Pods = ReadonlyMap<string, LocalPod>;

/** Whether the bytes mention one of these UIDs at all: cheap, before anything is parsed. */
export function mentionsAny(bytes: Uint8Array, uids: Iterable<string>): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const uid of uids) if (uid !== "" && buffer.includes(uid)) return true;
  return false;
}

/**
 * The item with its endpoints as the pods are now.
 *
 * @param bytes as a LIST carries the object; metadata.resourceVersion is not touched.
 * @returns undefined when nothing has to change.
 * @throws {MalformedError}
 */
export function repairEndpoints(
  resource: EndpointResource,
  format: "json" | "protobuf",
  bytes: Uint8Array,
  pods: Pods,
): Uint8Array | undefined {
  if (format === "json") return repairJson(resource, bytes, pods);
  return resource === "endpointslices" ? repairSlice(bytes, pods) : repairSubsets(bytes, pods);
}

/** The address of the family that is asked for. */
function addressOf(pod: LocalPod, isIpv6: boolean): string | undefined {
  return pod.ips.find((ip) => ip.includes(":") === isIpv6);
}

/** Whether an endpoint is ready now; undefined was: the field was absent, which means ready. */
function readyAs(endpoint: {
  readonly isServing: boolean;
  readonly wasReady: boolean | undefined;
  readonly wasServing: boolean | undefined;
  readonly isTerminating: boolean;
}): boolean {
  const { isServing, wasReady, wasServing, isTerminating } = endpoint;
  if (isTerminating) return wasReady === true;
  return isServing || (wasReady !== false && wasServing === false);
}

// ---- JSON ----

interface JsonEndpoint {
  addresses?: string[];
  conditions?: { ready?: boolean; serving?: boolean; terminating?: boolean };
  targetRef?: { kind?: string; uid?: string };
}

interface JsonAddress {
  ip?: string;
  targetRef?: { kind?: string; uid?: string };
}

interface JsonSubset {
  addresses?: JsonAddress[];
  notReadyAddresses?: JsonAddress[];
}

function repairJson(resource: EndpointResource, bytes: Uint8Array, pods: Pods): Uint8Array | undefined {
  const before = parseExact(bytes);
  const after = parseExact(bytes);
  const object = after as { addressType?: string; endpoints?: JsonEndpoint[] | null; subsets?: JsonSubset[] | null };
  if (resource === "endpointslices") {
    const isIpv6 = object.addressType === "IPv6";
    if (isIpv6 || object.addressType === "IPv4")
      for (const endpoint of object.endpoints ?? [])
        repairJsonEndpoint(endpoint, podOf(endpoint.targetRef, pods), isIpv6);
  } else {
    for (const subset of object.subsets ?? []) repairJsonSubset(subset, pods);
  }
  return Bun.deepEquals(before, after, true) ? undefined : rewrittenJson(bytes, before, after);
}

function podOf(reference: JsonAddress["targetRef"], pods: Pods): LocalPod | undefined {
  return reference?.uid === undefined || (reference.kind ?? "Pod") !== "Pod" ? undefined : pods.get(reference.uid);
}

function repairJsonEndpoint(endpoint: JsonEndpoint, pod: LocalPod | undefined, isIpv6: boolean): void {
  if (pod === undefined) return;
  const address = addressOf(pod, isIpv6);
  if (address !== undefined) endpoint.addresses = [address];
  const { ready, serving, terminating } = endpoint.conditions ?? {};
  const isServing = pod.isReady && address !== undefined;
  const isReady = readyAs({ isServing, wasReady: ready, wasServing: serving, isTerminating: terminating === true });
  endpoint.conditions = { ...endpoint.conditions, ready: isReady, serving: isServing };
}

function repairJsonSubset(subset: JsonSubset, pods: Pods): void {
  const ready: JsonAddress[] = [];
  const notReady: JsonAddress[] = [];
  const place = (address: JsonAddress, wasReady: boolean) => {
    const pod = podOf(address.targetRef, pods);
    if (pod !== undefined) {
      const ip = addressOf(pod, address.ip?.includes(":") === true);
      if (ip !== undefined) address.ip = ip;
      wasReady = pod.isReady && ip !== undefined;
    }
    (wasReady ? ready : notReady).push(address);
  };
  for (const address of subset.addresses ?? []) place(address, true);
  for (const address of subset.notReadyAddresses ?? []) place(address, false);
  put(subset, "addresses", ready);
  put(subset, "notReadyAddresses", notReady);
}

function put(subset: JsonSubset, name: keyof JsonSubset, list: JsonAddress[]): void {
  if (list.length > 0) subset[name] = list;
  else if (subset[name] !== undefined) delete subset[name];
}

// ---- protobuf ----

function repairSlice(bytes: Uint8Array, pods: Pods): Uint8Array | undefined {
  let family = "";
  for (const field of fieldsOf(bytes)) if (field.number === 4 && field.wireType === 2) family = fieldText(bytes, field);
  if (family !== "IPv4" && family !== "IPv6") return undefined;
  return rewritten(bytes, 0, bytes.length, 2, (field) => repairEndpoint(bytes, field, pods, family === "IPv6"));
}

/** The same message with every field of one number put through `change`; undefined when none is changed. */
function rewritten(
  bytes: Uint8Array,
  from: number,
  to: number,
  number: number,
  change: (field: Field) => Uint8Array | undefined,
): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  let isChanged = false;
  for (const field of fieldsOf(bytes, from, to)) {
    const made = field.number === number && field.wireType === 2 ? change(field) : undefined;
    isChanged ||= made !== undefined;
    parts.push(made ?? bytes.subarray(field.at, field.end));
  }
  return isChanged ? joinBytes(parts) : undefined;
}

function repairEndpoint(bytes: Uint8Array, endpoint: Field, pods: Pods, isIpv6: boolean): Uint8Array | undefined {
  const fields = [...fieldsOf(bytes, endpoint.start, endpoint.end)];
  const pod = referredPod(bytes, fields, 4, pods);
  if (pod === undefined) return undefined;
  const address = addressOf(pod, isIpv6);
  const conditions = fields.findLast(({ number }) => number === 2);
  const lead: Uint8Array[] =
    address === undefined
      ? fields.filter(({ number }) => number === 1).map(({ at, end }) => bytes.subarray(at, end))
      : [text(1, address)];
  const rest = fields
    .filter(({ number }) => number !== 1 && number !== 2)
    .map(({ at, end }) => bytes.subarray(at, end));
  const isServing = pod.isReady && address !== undefined;
  const made = message(2, [...lead, message(2, conditionFields(bytes, conditions, isServing)), ...rest]);
  return Buffer.from(made).equals(bytes.subarray(endpoint.at, endpoint.end)) ? undefined : made;
}

function conditionFields(bytes: Uint8Array, conditions: Field | undefined, isServing: boolean): Uint8Array[] {
  const fields = conditions === undefined ? [] : [...fieldsOf(bytes, conditions.start, conditions.end)];
  const flag = (number: number) => {
    const value = fields.findLast((field) => field.number === number)?.value;
    return value === undefined ? undefined : value !== 0;
  };
  const isReady = readyAs({ isServing, wasReady: flag(1), wasServing: flag(2), isTerminating: flag(3) === true });
  const others = fields.filter(({ number }) => number > 2).map(({ at, end }) => bytes.subarray(at, end));
  return [varint(1, isReady ? 1 : 0), varint(2, isServing ? 1 : 0), ...others];
}

function referredPod(bytes: Uint8Array, fields: readonly Field[], number: number, pods: Pods): LocalPod | undefined {
  const reference = fields.findLast((field) => field.number === number && field.wireType === 2);
  if (reference === undefined) return undefined;
  let kind = "Pod";
  let uid = "";
  for (const field of fieldsOf(bytes, reference.start, reference.end)) {
    if (field.wireType !== 2) continue;
    if (field.number === 1) kind = fieldText(bytes, field);
    else if (field.number === 4) uid = fieldText(bytes, field);
  }
  return kind === "Pod" ? pods.get(uid) : undefined;
}

function repairSubsets(bytes: Uint8Array, pods: Pods): Uint8Array | undefined {
  return rewritten(bytes, 0, bytes.length, 2, (subset) => {
    const ready: Uint8Array[] = [];
    const notReady: Uint8Array[] = [];
    const rest: Uint8Array[] = [];
    for (const field of fieldsOf(bytes, subset.start, subset.end)) {
      const raw = bytes.subarray(field.at, field.end);
      if (field.wireType !== 2 || (field.number !== 1 && field.number !== 2)) {
        rest.push(raw);
        continue;
      }
      const placed = placedAddress(bytes, field, pods);
      if (placed.isReady) ready.push(message(1, placed.content));
      else notReady.push(message(2, placed.content));
    }
    const made = message(2, [...ready, ...notReady, ...rest]);
    return Buffer.from(made).equals(bytes.subarray(subset.at, subset.end)) ? undefined : made;
  });
}

function placedAddress(
  bytes: Uint8Array,
  address: Field,
  pods: Pods,
): { readonly isReady: boolean; readonly content: readonly Uint8Array[] } {
  const fields = [...fieldsOf(bytes, address.start, address.end)];
  const pod = referredPod(bytes, fields, 2, pods);
  if (pod === undefined)
    return { isReady: address.number === 1, content: [bytes.subarray(address.start, address.end)] };
  const old = fields.find(({ number, wireType }) => number === 1 && wireType === 2);
  const ip = addressOf(pod, old !== undefined && fieldText(bytes, old).includes(":"));
  if (ip === undefined) return { isReady: false, content: [bytes.subarray(address.start, address.end)] };
  const rest = fields.filter(({ number }) => number !== 1).map(({ at, end }) => bytes.subarray(at, end));
  return { isReady: pod.isReady, content: [text(1, ip), ...rest] };
}
