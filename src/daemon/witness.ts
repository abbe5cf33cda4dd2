/**
 * How the witness hears of questions and sends its answers: over the daemon's own link and identity.
 */

import * as v from "valibot";
import { askSmall, nodeOf } from "../node/own-node.ts";
import { lastOwnNode } from "../node/own-pods.ts";
import { Witness, type WitnessParts } from "../witness/witness.ts";
import type { FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";

const METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const DEADLINE_MS = 10_000;
const metadataSchema = v.object({
  metadata: v.object({ annotations: v.optional(v.record(v.string(), v.string()), {}) }),
});

/** Builds it; it does nothing where the configuration says so. */
export function buildWitness(ground: Ground, over: FrontGround): Part {
  const witness = new Witness(witnessParts(ground, over));
  let stop = () => {};
  return {
    name: "witness",
    start() {
      if (ground.config.isWitness) stop = witness.start();
    },
    drain: () => stop(),
  };
}

function witnessParts({ config, clock, log, signal }: Ground, { uplink, copies }: FrontGround): WitnessParts {
  const { upstream, link, ownCredential } = uplink;
  const { scopes } = copies;
  const own = config.upstream.credential;
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
      ownCredential(),
      DEADLINE_MS,
      signal,
    );
  return {
    clock,
    log,
    isOnline: () => link.isOnline(),
    ownNode: () => {
      const node = nodeOf(own);
      const bytes = node === undefined ? undefined : lastOwnNode(scopes, node);
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
