/**
 * What the watches say of nodes and of who holds whose tunnel.
 */

import * as v from "valibot";
import { NODE_ANNOTATION } from "../kube/tunnel-names.ts";
import { holderOf, type Holder, type KnownNode } from "./objects.ts";

/** Who is told. */
export interface ViewEvents {
  /** A node is there, or (undefined) none that may have a tunnel. */
  readonly onNode: (name: string, node: KnownNode | undefined) => void;
  /** Somebody holds a node's tunnel; its port is this one. */
  readonly onHolder: (name: string, port: number) => void;
}

const metadataSchema = v.object({
  metadata: v.object({
    name: v.string(),
    uid: v.string(),
    annotations: v.nullish(v.record(v.string(), v.string()), {}),
  }),
});

/** The view; `nodes` and `slices` are what `follow` is given. */
export class ClusterView {
  #nodes = new Map<string, KnownNode>();
  #holders = new Map<string, Holder>();
  #areNodesRead = false;
  #areHoldersRead = false;

  constructor(private readonly events: ViewEvents) {}

  /** Both lists have been read. */
  get isSynced(): boolean {
    return this.#areNodesRead && this.#areHoldersRead;
  }

  /** A node that may have a tunnel, as far as the watch has told. */
  nodeOf(name: string): KnownNode | undefined {
    return this.#nodes.get(name);
  }

  /** Who holds a node's tunnel, as far as the watch has told. */
  holderOf(name: string): Holder | undefined {
    return this.#holders.get(name);
  }

  /** For nodes. */
  readonly nodes = (() => {
    let fresh = new Set<string>();
    return {
      listing: () => void (fresh = new Set()),
      put: (object: unknown) => {
        const node = nodeOf(object);
        if (node === undefined) return;
        fresh.add(node.name);
        this.#nodes.set(node.name, node);
        this.events.onNode(node.name, node);
      },
      listed: () => {
        for (const name of [...this.#nodes.keys()]) if (!fresh.has(name)) this.#lost(name);
        this.#areNodesRead = true;
      },
      gone: (object: unknown) => {
        const node = nodeOf(object);
        if (node !== undefined) this.#lost(node.name);
      },
    };
  })();

  /** For EndpointSlices. */
  readonly slices = (() => {
    let fresh = new Map<string, Holder>();
    return {
      listing: () => void (fresh = new Map()),
      put: (object: unknown) => {
        const found = holderOf(object);
        if (found === undefined) return;
        fresh.set(found.nodeName, found.holder);
        this.#holders.set(found.nodeName, found.holder);
        this.events.onHolder(found.nodeName, found.holder.port);
      },
      listed: () => {
        this.#holders = new Map(fresh);
        this.#areHoldersRead = true;
      },
      gone: (object: unknown) => {
        const read = v.safeParse(metadataSchema, object);
        const name = read.success ? read.output.metadata.annotations?.[NODE_ANNOTATION] : undefined;
        if (name !== undefined) this.#holders.delete(name);
      },
    };
  })();

  #lost(name: string): void {
    this.#nodes.delete(name);
    this.events.onNode(name, undefined);
  }
}

function nodeOf(object: unknown): KnownNode | undefined {
  const read = v.safeParse(metadataSchema, object);
  return read.success ? { name: read.output.metadata.name, uid: read.output.metadata.uid } : undefined;
}
