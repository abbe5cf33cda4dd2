/**
 * Our own node: who our certificate makes us, and what we ask and send in its name.
 */

import { X509Certificate } from "node:crypto";
import { certificatesOf } from "../certificates/pem.ts";
import type { Clock } from "../base/clock.ts";
import type { Credential } from "../kube/credential.ts";
import type { ReplayOutcome, WaitingEvent } from "./event-ring.ts";
import { certificatePrincipal, nodeNameOf } from "../callers/identify.ts";
import type { NodeWord } from "./reconnect.ts";
import type { RegistrationBody } from "./registration.ts";
import type { Upstream, UpstreamCredential } from "../uplink/upstream.ts";
import type { UpstreamAnswer } from "../uplink/upstream-answer.ts";

/** The node our own certificate makes us. */
export function nodeOf(own: Credential): { readonly principal: string; readonly name: string } | undefined {
  if (own.kind !== "certificate") return undefined;
  const subject = subjectOf(own.read().certPem);
  const name = nodeNameOf(subject);
  return name === undefined ? undefined : { name, principal: certificatePrincipal(subject) };
}

const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/** Retry-After in ms; a second where it says nothing that can be read. */
function askedMs(retryAfter: string | null): number {
  const seconds = Number(retryAfter ?? 1);
  return Math.max(1, Number.isFinite(seconds) ? seconds : 1) * 1_000;
}

/** Authenticates and looks for our own node in one small request. */
export async function askNode(
  upstream: Upstream,
  credential: UpstreamCredential,
  name: string,
  signal: AbortSignal,
): Promise<NodeWord> {
  try {
    const response = await upstream.request({
      method: "GET",
      target: `/api/v1/nodes/${encodeURIComponent(name)}`,
      headers: [
        ["Accept", METADATA_ONLY],
        ["Accept-Encoding", "identity"],
      ],
      credential,
      signal,
      mayRetry: true,
    });
    const body = await response.text();
    const isRefusal = response.word === "refusal";
    if (isRefusal && response.status === 401) return { kind: "refused" };
    if (isRefusal && response.status === 404) return { kind: "gone" };
    if (response.status === 429) return { kind: "busy", retryAfterMs: askedMs(response.headers.get("retry-after")) };
    if (response.status !== 200) return { kind: "unknown" };
    const { metadata } = JSON.parse(body) as { metadata?: { uid?: string } };
    return metadata?.uid === undefined ? { kind: "unknown" } : { kind: "there", uid: metadata.uid };
  } catch {
    return { kind: "unknown" };
  }
}

/** Registers our own node with what kubelet sent. @returns the status; undefined when nobody answered. */
export async function registerNode(
  upstream: Upstream,
  credential: UpstreamCredential,
  { contentType, body }: RegistrationBody,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    const response = await upstream.request({
      method: "POST",
      target: "/api/v1/nodes",
      headers: [
        ["Content-Type", contentType],
        ["Accept", "application/json"],
        ["Accept-Encoding", "identity"],
      ],
      body: new Uint8Array(body),
      credential,
      signal,
    });
    await response.bytes();
    return response.status;
  } catch {
    return undefined;
  }
}

/** Sends up one event of the cut; what is there already (409) has reached the API server before. @param credential undefined while its sender has not spoken since our start. */
export async function sendEvent(
  upstream: Upstream,
  credential: UpstreamCredential | undefined,
  event: WaitingEvent,
  signal: AbortSignal,
): Promise<ReplayOutcome> {
  if (credential === undefined) return "later";
  try {
    const response = await upstream.request({
      method: event.method,
      target: event.target,
      headers: [
        ["Content-Type", event.contentType],
        ["Accept", "application/json"],
        ["Accept-Encoding", "identity"],
      ],
      body: new Uint8Array(Buffer.from(event.body, "base64")),
      credential,
      signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
    });
    await response.bytes();
    return response.status < 300 || response.status === 409 ? "sent" : "refused";
  } catch {
    return "unreachable";
  }
}

/** Runs a task every hour; the returned function ends it. */
export function sweepHourly(clock: Clock, sweep: () => void): () => void {
  let cancel = () => {};
  const schedule = () => {
    cancel = clock.after(3_600_000, () => {
      sweep();
      schedule();
    });
  };
  schedule();
  return () => cancel();
}

/** Asks the API server something small with one credential. @throws when there is no answer in time. */
export async function askSmall(
  upstream: Upstream,
  request: {
    readonly method: string;
    readonly target: string;
    readonly accept: string;
    readonly body?: string;
    readonly contentType?: string;
  },
  credential: UpstreamCredential,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string; readonly word: UpstreamAnswer["word"] }> {
  const response = await upstream.request({
    method: request.method,
    target: request.target,
    headers: [
      ["Accept", request.accept],
      ["Accept-Encoding", "identity"],
      ...(request.body === undefined ? [] : [["Content-Type", request.contentType ?? "application/json"] as const]),
    ],
    ...(request.body === undefined ? {} : { body: new Uint8Array(Buffer.from(request.body)) }),
    credential,
    signal: AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]),
    mayRetry: request.method === "GET",
  });
  return { status: response.status, body: await response.text(), word: response.word };
}

const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

/** Whether one of these CAs (PEM) signed the certificate (DER) for client authentication; dates are not looked at. */
export function isSignedForClients(certificate: Uint8Array, caPem: string): boolean {
  const leaf = new X509Certificate(certificate);
  if (leaf.ca || leaf.keyUsage?.includes(CLIENT_AUTH) !== true) return false;
  return certificatesOf(caPem).some((ca) => leaf.checkIssued(ca) && leaf.verify(ca.publicKey));
}

/** A certificate's dates, PEM or DER. */
export function datesOf(certificate: string | Uint8Array): {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
} {
  const { validFrom, validTo } = new X509Certificate(certificate);
  return { notBeforeMs: Date.parse(validFrom), notAfterMs: Date.parse(validTo) };
}

/** A certificate's common name and organisations. */
export function subjectOf(certPem: string): { name: string; groups: string[] } {
  const { subject } = new X509Certificate(certPem);
  const parts = subject
    .split("\n")
    .map((line): [string, string] => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]);
  return {
    name: parts.find(([key]) => key === "CN")?.[1] ?? "",
    groups: parts.filter(([key]) => key === "O").map(([, value]) => value),
  };
}
