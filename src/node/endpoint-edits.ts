/**
 * Addresses of this node's pods in kept endpoints, as they are and not as the
 * cloud last knew them.
 *
 * After a reboot while cut every pod has another address, and the controllers
 * that would say so cannot be reached. What kubelet tells of its pods is
 * written into the kept EndpointSlices and Endpoints, so that kube-proxy and
 * CoreDNS lead to the live pod; the rows stay the cloud's, and at the return
 * its truth takes their place.
 *
 * Several statuses come at once after a reboot: scopes are gone through once
 * for all of them, a moment later.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { MalformedError } from "../kube/codec.ts";
import { mentionsAny, repairEndpoints, type EndpointResource, type LocalPod } from "../kube/endpoint-repair.ts";
import type { LocalVersions } from "../cache/edits.ts";
import type { Scope } from "../cache/scope.ts";
import type { Scopes } from "../cache/scopes.ts";

export type { LocalPod };

interface EndpointEditParts {
  readonly scopes: Scopes;
  readonly clock: Clock;
  readonly log: Log;
  readonly versions: LocalVersions;
  readonly pods: () => ReadonlyMap<string, LocalPod>;
  /** Whether a copy may be edited now: not while the API server itself tells it what is true. */
  readonly mayLay: (scope: Scope) => boolean;
}

const GATHER_MS = 50;

/** Keeps edited endpoints in step with the pods' overlays. */
export class EndpointEdits {
  #cancel: (() => void) | undefined;

  constructor(private readonly parts: EndpointEditParts) {}

  /** Some pod's address or readiness may be another now. */
  changed(): void {
    this.#cancel ??= this.parts.clock.after(GATHER_MS, () => {
      this.#cancel = undefined;
      this.#layAll();
    });
  }

  /** The cloud speaks again. */
  ended(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #layAll(): void {
    const pods = this.parts.pods();
    if (pods.size === 0) return;
    for (const scope of this.parts.scopes.all()) {
      const resource = endpointResource(scope);
      if (resource === undefined || !this.parts.mayLay(scope)) continue;
      try {
        this.#lay(scope, resource, pods);
      } catch (error) {
        this.parts.log.error("endpoints not repaired", { resource, error: String(error) });
      }
    }
  }

  #lay(scope: Scope, resource: EndpointResource, pods: ReadonlyMap<string, LocalPod>): void {
    using rows = scope.rows();
    if (rows === undefined) return;
    const codec = scope.codec(rows.listed);
    const format = rows.listed.contentType === "application/json" ? "json" : "protobuf";
    const edited: Item[] = [];
    for (const row of rows.items()) {
      const { namespace, name } = row.meta;
      const isEdited = scope.isItemEdited(namespace, name);
      if (!isEdited && !mentionsAny(row.bytes, pods.keys())) continue;
      const repaired = this.#repaired(resource, format, row, pods);
      if (repaired === undefined && !isEdited) continue;
      const held = scope.item(namespace, name)!;
      // Compared as they would read with the version they are served with now.
      const wanted = codec.withResourceVersion(repaired ?? row.bytes, held.meta.resourceVersion);
      if (Buffer.from(held.bytes).equals(wanted)) continue;
      const resourceVersion = this.parts.versions.next();
      edited.push({
        meta: { ...row.meta, resourceVersion },
        bytes: codec.withResourceVersion(wanted, resourceVersion),
      });
    }
    if (edited.length > 0) scope.edit(edited);
  }

  #repaired(
    resource: EndpointResource,
    format: "json" | "protobuf",
    row: Item,
    pods: ReadonlyMap<string, LocalPod>,
  ): Uint8Array | undefined {
    try {
      return repairEndpoints(resource, format, row.bytes, pods);
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      this.parts.log.warn("endpoints left as they are", { resource, reason: error.message });
      return undefined;
    }
  }
}

function endpointResource({ identity, listed }: Scope): EndpointResource | undefined {
  if (listed?.shape.listKind === "EndpointSliceList" && identity.group === "discovery.k8s.io") return "endpointslices";
  if (listed?.shape.listKind === "EndpointsList" && identity.group === "") return "endpoints";
  return undefined;
}
