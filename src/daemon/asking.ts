/**
 * What is asked with our own credential to know how things stand: a probe of
 * the link, and one of the storage behind it.
 */

import type { Credential } from "../kube/credential.ts";
import { nodeOf } from "../node/own-node.ts";
import type { StorageWord } from "../uplink/storage.ts";
import type { Upstream, UpstreamCredential } from "../uplink/upstream.ts";
import type { UpstreamAnswer } from "../uplink/upstream-answer.ts";

/** What the API server says of its etcd; where it does not say, whether it can read our own node, or any namespace. */
export async function askStorage(
  upstream: Upstream,
  own: Credential,
  credential: UpstreamCredential,
  signal: AbortSignal,
): Promise<StorageWord> {
  const ask = async (target: string) => {
    const headers = [
      ["Accept", "application/json"],
      ["Accept-Encoding", "identity"],
    ] as const;
    const answer = await upstream.request({ method: "GET", target, headers, credential, signal });
    return { status: answer.status, text: await answer.text() };
  };
  try {
    // Everybody may ask for the whole (system:public-info-viewer), hardly anybody for /livez/etcd.
    const { status, text } = await ask("/livez");
    if (status < 400) return "well";
    // Of its other checks none concerns storage.
    if (status >= 500) return /^\[-\]etcd/m.test(text) ? "silent" : "well";
    const node = nodeOf(own);
    const read = await ask(node === undefined ? "/api/v1/namespaces/default" : `/api/v1/nodes/${node.name}`);
    return read.status < 500 ? "well" : "silent";
  } catch {
    return "unanswered";
  }
}

/** A version document, or the API server's own word that we may not see one, or not now. */
function isSound({ word, status }: UpstreamAnswer): boolean {
  return word === "answer" || status === 401 || status === 403 || status === 429;
}

/** How a probe was answered. */
export interface ProbeAnswer {
  readonly status: number;
  /** For so long it asks to be left alone; 0 when it does not. */
  readonly retryAfterMs: number;
}

/** A trifle that any API server answers at once. */
export async function probe(
  upstream: Upstream,
  credential: UpstreamCredential,
  serverCount: number,
  signal: AbortSignal,
): Promise<ProbeAnswer> {
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await upstream.request({
        method: "GET",
        target: "/version",
        headers: [
          ["Accept", "application/json"],
          ["Accept-Encoding", "identity"],
        ],
        credential,
        signal,
        isProbe: true,
      });
      await response.bytes();
      const seconds = response.status === 429 ? Number(response.headers.get("retry-after")) : 0;
      if (isSound(response))
        return { status: response.status, retryAfterMs: Number.isFinite(seconds) ? Math.max(0, seconds) * 1_000 : 0 };
      throw new Error(`the API server answers ${response.status}`);
    } catch (error) {
      if (attempt + 1 >= serverCount || signal.aborted) throw error;
    }
  }
}

/** Hardly ever more than an item or two, and every node may list it. */
const SMALL_COLLECTION = "/apis/node.k8s.io/v1/runtimeclasses?limit=1";
const LIST_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/** The cluster's newest resourceVersion: every list is as of one. @returns undefined when there is no list. */
export async function newestVersion(
  upstream: Upstream,
  credential: UpstreamCredential,
  signal: AbortSignal,
): Promise<string | undefined> {
  const headers = [
    ["Accept", LIST_METADATA_ONLY],
    ["Accept-Encoding", "identity"],
  ] as const;
  const answer = await upstream.request({ method: "GET", target: SMALL_COLLECTION, headers, credential, signal });
  const text = await answer.text();
  if (answer.status !== 200) return undefined;
  const { metadata } = JSON.parse(text) as { metadata?: { resourceVersion?: string } };
  return metadata?.resourceVersion;
}
