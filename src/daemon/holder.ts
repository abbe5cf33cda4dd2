/**
 * Whether this device may be its node: asked in the node's own name, past the
 * gate that it shuts when the answer is no.
 */

import { deviceIdOf } from "../machine/device-id.ts";
import { Holder } from "../node/holder.ts";
import { nodeOf } from "../node/own-node.ts";
import { lastOwnNode } from "../node/own-pods.ts";
import type { Copies } from "./copies.ts";
import type { Ground } from "./ground.ts";
import { textOf } from "./state.ts";
import type { Uplink } from "./uplink.ts";

const KEPT = "node-held-by";
const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/** Builds it; undefined where the configuration does not ask for it, or this machine has no identity of its own. */
export function buildHolder(ground: Ground, uplink: Uplink, { scopes }: Pick<Copies, "scopes">): Holder | undefined {
  const { config, clock, conditions, log, machineRoot, store } = ground;
  const own = config.claimsNode ? deviceIdOf(machineRoot) : undefined;
  if (own === undefined) return undefined;
  const node = () => nodeOf(config.upstream.credential);
  const holder = new Holder({
    own,
    clock,
    log,
    nodeName: () => node()?.name,
    ask: (name, patch, signal) => ask(uplink, name, patch, signal),
    heard: () => {
      const known = node();
      return known === undefined ? undefined : lastOwnNode(scopes, known);
    },
    kept: {
      read: () => textOf(store.getValue(KEPT)),
      write: (held) =>
        held === undefined ? store.deleteValue(KEPT) : store.putValue(KEPT, Buffer.from(held), { isSecret: false }),
    },
    onBarred(isBarred) {
      const { gate, link, upstream } = uplink;
      if (!isBarred) return gate.open("kept out");
      gate.shut("kept out");
      upstream.renewConnections();
      link.failed();
    },
  });
  conditions.watch("IdentityCopied", () => holder.finding());
  return holder;
}

async function ask({ upstream, ownCredential }: Uplink, name: string, patch: string | undefined, signal: AbortSignal) {
  try {
    const answer = await upstream.request({
      method: patch === undefined ? "GET" : "PATCH",
      target: `/api/v1/nodes/${encodeURIComponent(name)}`,
      headers: [
        ["Accept", METADATA_ONLY],
        ["Accept-Encoding", "identity"],
        ...(patch === undefined ? [] : [["Content-Type", "application/merge-patch+json"] as const]),
      ],
      ...(patch === undefined ? {} : { body: new Uint8Array(Buffer.from(patch)) }),
      credential: ownCredential(),
      signal,
      passesGate: true,
    });
    return { status: answer.status, body: await answer.text() };
  } catch {
    return undefined;
  }
}
