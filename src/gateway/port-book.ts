/**
 * Which port is which node's, in one ConfigMap that all replicas write.
 *
 *   data         "20017": "edge-1"
 *   annotation   where nodes are dialled in mode `port`, by comma
 *
 * What was read last is kept: giving a port is then one small patch, which
 * holds only if nobody else has written since (resourceVersion), and whose
 * answer is the metadata alone. Ten thousand nodes are half a megabyte, and
 * nobody reads it for each of them.
 */

import type { V1ConfigMap } from "@kubernetes/client-node";
import * as v from "valibot";
import { ApiError } from "../cluster/api.ts";
import { reads, sent } from "../kube/wire.ts";
import { ADDRESSES_ANNOTATION, PLACE_LABELS, PORTS_NAME } from "../kube/tunnel-names.ts";

/** How the ConfigMap is asked for. */
export interface PortBookParts {
  /** @param name undefined for the collection. @throws {ApiError} */
  readonly ask: (
    method: "GET" | "POST" | "PATCH",
    name: string | undefined,
    body?: object,
    accept?: string,
  ) => Promise<unknown>;
  readonly first: number;
  readonly last: number;
}

/** No port is left in the range. */
export class NoPortLeftError extends ApiError {
  constructor(first: number, last: number) {
    super(
      `Cannot give a node a port: all of ${first} to ${last} are taken; widen the range with --ports`,
      507,
      "NoPort",
    );
  }
}

const METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const TRIES = 10;
const MAX_ADDRESSES = 16;

const texts = v.nullish(v.record(v.string(), v.string()), {});
const metadataSchema = v.object({ resourceVersion: v.string(), annotations: texts });
const bookSchema = reads<V1ConfigMap>()(v.object({ metadata: metadataSchema, data: texts }));
const answerSchema = v.object({ metadata: metadataSchema });

interface Known {
  resourceVersion: string;
  readonly nodes: Map<string, number>;
  readonly taken: Set<number>;
  addresses: readonly string[];
}

/** What a change adds. */
interface Change {
  readonly node?: { readonly name: string; readonly port: number };
  readonly addresses?: readonly string[];
}

/** The book. */
export class PortBook {
  #known: Known | undefined;
  /** One writer at a time here; between replicas the resourceVersion decides. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(private readonly parts: PortBookParts) {}

  /** The port of a node: the one it had, or a free one from now on. @throws {ApiError} */
  async give(nodeName: string): Promise<number> {
    let port = 0;
    await this.#change((known) => {
      port = known.nodes.get(nodeName) ?? this.#free(known);
      return known.nodes.has(nodeName) ? undefined : { node: { name: nodeName, port } };
    });
    return port;
  }

  /**
   * Says that nodes are dialled at this address: whoever approves kubelets'
   * serving certificates believes it. Replicas that are gone leave theirs
   * behind; the oldest give way.
   *
   * @throws {ApiError}
   */
  async publish(address: string): Promise<void> {
    await this.#change(({ addresses }) =>
      addresses.includes(address) ? undefined : { addresses: [...addresses, address].slice(-MAX_ADDRESSES) },
    );
  }

  /** @param wanted undefined: it is as it is to be. */
  #change(wanted: (known: Known) => Change | undefined): Promise<void> {
    const change = async () => {
      for (let attempt = 1; ; attempt++) {
        const known = (this.#known ??= await this.#read());
        const more = wanted(known);
        if (more === undefined) return;
        try {
          return await this.#write(known, more);
        } catch (error) {
          this.#known = undefined;
          if (!(error instanceof ApiError && (error.isConflict || error.status === 404)) || attempt >= TRIES)
            throw error;
        }
      }
    };
    const done = this.#last.then(change, change);
    this.#last = done.catch(() => {});
    return done;
  }

  async #write(known: Known, { node, addresses }: Change): Promise<void> {
    const body = {
      metadata: {
        resourceVersion: known.resourceVersion,
        ...(addresses === undefined ? {} : { annotations: { [ADDRESSES_ANNOTATION]: addresses.join(",") } }),
      },
      ...(node === undefined ? {} : { data: { [String(node.port)]: node.name } }),
    };
    const { metadata } = v.parse(answerSchema, await this.parts.ask("PATCH", PORTS_NAME, body, METADATA));
    known.resourceVersion = metadata.resourceVersion;
    if (addresses !== undefined) known.addresses = addresses;
    if (node === undefined) return;
    known.nodes.set(node.name, node.port);
    known.taken.add(node.port);
  }

  /** Made by whoever is first; everybody reads it. */
  async #read(): Promise<Known> {
    for (let attempt = 1; ; attempt++) {
      try {
        const { metadata, data } = v.parse(bookSchema, await this.parts.ask("GET", PORTS_NAME));
        const entries = Object.entries(data ?? {}).map(([port, node]) => [node, Number(port)] as const);
        return {
          resourceVersion: metadata.resourceVersion,
          nodes: new Map(entries),
          taken: new Set(entries.map(([, port]) => port)),
          addresses: (metadata.annotations?.[ADDRESSES_ANNOTATION] ?? "").split(",").filter((one) => one !== ""),
        };
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 404) || attempt >= TRIES) throw error;
      }
      const object = sent<V1ConfigMap>()({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: PORTS_NAME, labels: { ...PLACE_LABELS, "app.kubernetes.io/component": "gateway" } },
      });
      await this.parts.ask("POST", undefined, object).catch((error: unknown) => {
        if (!(error instanceof ApiError && error.isConflict)) throw error;
      });
    }
  }

  /** By chance, so that replicas that ask at once seldom want the same. */
  #free({ taken }: Known): number {
    const { first, last } = this.parts;
    const count = last - first + 1;
    const start = Math.floor(Math.random() * count);
    for (let step = 0; step < count; step++) {
      const port = first + ((start + step) % count);
      if (!taken.has(port)) return port;
    }
    throw new NoPortLeftError(first, last);
  }
}
