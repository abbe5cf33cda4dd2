/**
 * How the witness hears of questions and sends its answers: over the daemon's own link and identity.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { Credential } from "../kube/credential.ts";
import { askSmall, lastOwnNode, nodeOf } from "../node/own-node.ts";
import { upstreamCredential } from "../callers/identify.ts";
import type { Upstream } from "../uplink/upstream.ts";
import type { WitnessParts } from "../witness/witness.ts";

/** What it is made from. */
export interface WitnessSources {
  readonly upstream: Upstream;
  readonly scopes: Scopes;
  readonly own: Credential;
  readonly link: { isOnline(): boolean };
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const DEADLINE_MS = 10_000;
const metadataSchema = v.object({
  metadata: v.object({ annotations: v.optional(v.record(v.string(), v.string()), {}) }),
});

/** The parts. */
export function witnessParts({ upstream, scopes, own, link, clock, log, signal }: WitnessSources): WitnessParts {
  const target = (name: string) => `/api/v1/nodes/${encodeURIComponent(name)}`;
  const ask = (method: string, name: string, body?: string) =>
    askSmall(
      upstream,
      {
        method,
        target: target(name),
        accept: METADATA_ONLY,
        ...(body === undefined ? {} : { body, contentType: "application/merge-patch+json" }),
      },
      upstreamCredential("own", own),
      DEADLINE_MS,
      signal,
    );
  return {
    clock,
    log,
    isOnline: () => link.isOnline(),
    ownNode: () => {
      const node = nodeOf(own);
      const bytes = node === undefined ? undefined : lastOwnNode(scopes, node.principal, node.name);
      return node === undefined || bytes === undefined ? undefined : { name: node.name, bytes };
    },
    credential: () => (own.kind === "certificate" ? own.read() : undefined),
    async readAnnotations(name) {
      const { status, body } = await ask("GET", name);
      if (status !== 200) return undefined;
      const parsed = v.safeParse(metadataSchema, JSON.parse(body));
      return parsed.success ? parsed.output.metadata.annotations : undefined;
    },
    async annotate(name, annotations) {
      const { status } = await ask("PATCH", name, JSON.stringify({ metadata: { annotations } }));
      if (status !== 200) throw new Error(`the API server answered ${status}`);
    },
  };
}
