/**
 * The register of devices: which board is which node, read off the nodes
 * themselves, and what an image that was copied unsealed makes of them.
 *
 *   one node, two boards          the second was kept out and has said so
 *   one board, two nodes          it has joined under a second name
 *   one machine-id, two boards    both come of one image, or of one card
 *
 * Each is told once as an Event, on every node that it concerns. That the
 * second is kept out is its own Holdfast's doing (`node/holder.ts`): it holds
 * without a guard too.
 */

import { holderWords } from "../kube/node-holder.ts";
import type { NodeFacts } from "./facts.ts";
import type { Happenings } from "./happenings.ts";

/** What is told of a node. */
export interface DeviceWord {
  readonly node: NodeFacts;
  readonly reason: "HoldfastIdentityCopied" | "HoldfastDeviceTwice" | "HoldfastMachineIdShared";
  readonly message: string;
}

/** So many others are named. */
const MAX_NAMED = 3;
const MAX_TEXT = 200;

/** Everything that can be told now. */
export function deviceWords(nodes: Iterable<NodeFacts>): DeviceWord[] {
  const known = [...nodes].map((node) => ({ node, ...holderWords(node.annotations) }));
  const byDevice = Map.groupBy(known, ({ holder }) => holder);
  const byMachineId = Map.groupBy(known, ({ holder }) => holder?.split("/")[0]);
  return known.flatMap(({ node, holder, refused }) => {
    const words: DeviceWord[] = [];
    if (refused !== undefined && refused !== holder)
      words.push({
        node,
        reason: "HoldfastIdentityCopied",
        message: `The device ${cut(refused)} has a copy of this node's identity and was kept out; the node is the device ${cut(holder)}`,
      });
    if (holder === undefined) return words;
    const twice = byDevice.get(holder)!.filter((other) => other.node !== node);
    if (twice.length > 0)
      words.push({
        node,
        reason: "HoldfastDeviceTwice",
        message: `The device ${cut(holder)} is also ${namesOf(twice)}: delete the node that it is no more`,
      });
    const shared = byMachineId.get(holder.split("/")[0])!.filter((other) => other.holder !== holder);
    if (shared.length > 0)
      words.push({
        node,
        reason: "HoldfastMachineIdShared",
        message: `The device ${cut(holder)} shares its machine-id with ${namesOf(shared)}: seal the image before it is flashed (holdfast image seal)`,
      });
    return words;
  });
}

/** Tells each of them once; what is not so any more can be told anew. */
export class Devices {
  #told = new Set<string>();

  constructor(
    private readonly nodes: () => Iterable<NodeFacts>,
    private readonly happenings: Pick<Happenings, "tell">,
  ) {}

  /** One look at all nodes. */
  round(): void {
    const told = new Set<string>();
    for (const { node, reason, message } of deviceWords(this.nodes())) {
      const { name, uid } = node;
      const key = `${uid} ${reason} ${message}`;
      told.add(key);
      if (!this.#told.has(key))
        this.happenings.tell({ kind: "Node", namespace: "", name, uid, type: "Warning", reason, message });
    }
    this.#told = told;
  }
}

function namesOf(others: readonly { readonly node: NodeFacts; readonly holder: string | undefined }[]): string {
  const named = others.slice(0, MAX_NAMED).map(({ node, holder }) => `node ${node.name} (${cut(holder)})`);
  const more = others.length > MAX_NAMED ? ` and ${others.length - MAX_NAMED} more` : "";
  return `${named.join(", ")}${more}`;
}

/** What a node says of itself is anybody's text. */
function cut(text = "(not known)"): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, MAX_TEXT);
}
