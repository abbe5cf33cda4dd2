/**
 * Where this node is shown, kept true: where the tunnel ends, or else at the
 * place of the configuration.
 */

import type { PlaceSource } from "../kube/place.ts";
import { PlaceKeeper } from "../node/place-keeper.ts";
import { askSmall, nodeOf } from "../node/own-node.ts";
import { NodePlace, type Correction } from "../uplink/node-place.ts";
import type { Ground } from "./ground.ts";
import type { NodeParts } from "./node.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

const DEADLINE_MS = 10_000;

/** What cannot be restored stands as a condition until the daemon starts anew: who read it may have kept it. */
export function buildNodePlace({ config, conditions }: Ground): NodePlace {
  const own = config.upstream.credential;
  let known: { readonly certPem: string; readonly name: string | undefined } | undefined;
  const nodeName = () => {
    if (own.kind !== "certificate") return undefined;
    const { certPem } = own.read();
    if (known?.certPem !== certPem) known = { certPem, name: nodeOf(own)?.name };
    return known.name;
  };
  return new NodePlace(nodeName, (why) =>
    conditions.raise("NodeNotRestored", {
      reason: "PassedOnAsItCame",
      message: `A client of this node was told its place for its address: ${why}`,
      next: "Ask for the node as JSON or protobuf; kubectl get node NAME -o yaml does",
    }),
  );
}

/** Shows the node where it is configured to be, and puts right what is astray. */
export function placePart(ground: Ground, uplink: Uplink, node: NodeParts, tunnel: PlaceSource | undefined): Part {
  const { clock, conditions, config, log, signal } = ground;
  const keeper = new PlaceKeeper({
    place: uplink.place,
    link: uplink.link,
    clock,
    log,
    mayWrite: node.asked.mayWrite,
    read: async (readSignal) => void (await ask(uplink, { method: "GET", target: uplink.place.target }, readSignal)),
    write: ({ target, contentType, body }, writeSignal) =>
      ask(uplink, { method: "PATCH", target, contentType, body }, writeSignal),
    onContested: (finding) =>
      finding === undefined ? conditions.clear("PlaceContested") : conditions.raise("PlaceContested", finding),
  });
  return {
    name: "place",
    start() {
      const { place } = config;
      const source = tunnel ?? (place === undefined ? undefined : { current: () => place, onChange: () => () => {} });
      if (source !== undefined) uplink.place.follow(source);
      keeper.start(signal);
    },
    drain: () => keeper.stop(),
  };
}

/** @returns the answer's status; undefined when nobody answered. */
async function ask(
  { upstream, ownCredential }: Uplink,
  request: { readonly method: string } & Pick<Correction, "target"> & Partial<Correction>,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    const asked = { ...request, accept: "application/json" };
    return (await askSmall(upstream, asked, ownCredential(), DEADLINE_MS, signal)).status;
  } catch {
    return undefined;
  }
}
