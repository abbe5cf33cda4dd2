/**
 * What is asked of the API server for node agents: how far a right goes, what
 * an object is now, and to take what an agent changed.
 */

import * as v from "valibot";
import type { Upstream, UpstreamCredential } from "../uplink/upstream.ts";
import type { ReadWord, WriteWord } from "./agent-return.ts";
import type { WaitingChanges } from "./overlays.ts";
import { askSmall } from "./own-node.ts";
import type { Right } from "./seen-rights.ts";
import type { StatusTarget } from "./status-patch.ts";

const DEADLINE_MS = 5_000;
const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const verdictSchema = v.object({ status: v.object({ allowed: v.boolean() }) });

/** Whether this credential's owner has a right, asked of itself; undefined when nobody said. */
export async function askRight(
  upstream: Upstream,
  credential: UpstreamCredential,
  { verb, group, resource, subresource, namespace }: Right,
  signal: AbortSignal,
): Promise<boolean | undefined> {
  const resourceAttributes = { verb, group, resource, subresource, namespace: namespace === "*" ? "" : namespace };
  const question = {
    kind: "SelfSubjectAccessReview",
    apiVersion: "authorization.k8s.io/v1",
    spec: { resourceAttributes },
  };
  const request = {
    method: "POST",
    target: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    accept: "application/json",
    body: JSON.stringify(question),
  };
  try {
    const { status, body } = await askSmall(upstream, request, credential, DEADLINE_MS, signal);
    return status === 201 ? v.parse(verdictSchema, JSON.parse(body)).status.allowed : undefined;
  } catch {
    return undefined;
  }
}

/** Reads an object as the node itself may. */
export async function readObject(
  upstream: Upstream,
  credential: UpstreamCredential,
  target: StatusTarget,
  signal: AbortSignal,
): Promise<ReadWord> {
  const request = { method: "GET", target: pathOf(target), accept: "application/json" };
  try {
    const { status, body, word } = await askSmall(upstream, request, credential, DEADLINE_MS, signal);
    if (status === 200 && word === "answer") return { kind: "there", bytes: Buffer.from(body) };
    return status === 404 && word === "refusal" ? { kind: "gone" } : undefined;
  } catch {
    return undefined;
  }
}

/** Sends up what one caller changed of one object. @param credential undefined while the caller has not spoken since our start. */
export async function writeObject(
  upstream: Upstream,
  credential: UpstreamCredential | undefined,
  group: WaitingChanges,
  body: string,
  signal: AbortSignal,
): Promise<WriteWord> {
  if (credential === undefined) return "later";
  const path = group.subresource === "" ? pathOf(group) : `${pathOf(group)}/${group.subresource}`;
  const isPatch = group.verb === "patch";
  const request = {
    method: isPatch ? "PATCH" : "PUT",
    target: `${path}?fieldManager=holdfast`,
    accept: METADATA_ONLY,
    body,
    contentType: isPatch ? "application/strategic-merge-patch+json" : "application/json",
  };
  try {
    const { status, word } = await askSmall(upstream, request, credential, DEADLINE_MS, signal);
    if (status === 200 && word === "answer") return "done";
    if (word !== "refusal" || status === 401 || status === 429 || status >= 500) return "later";
    if (status === 403) return "forbidden";
    return status === 409 ? "conflict" : "refused";
  } catch {
    return "later";
  }
}

function pathOf({ resource, namespace, name }: StatusTarget): string {
  const within = namespace === "" ? "" : `/namespaces/${encodeURIComponent(namespace)}`;
  return `/api/v1${within}/${resource}/${encodeURIComponent(name)}`;
}
