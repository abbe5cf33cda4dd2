/**
 * What the copies of this node would give its pods in a restart while cut.
 *
 * Asked of the copies themselves, as kubelet would ask: by the node's own
 * principal, from whatever lies within what it has read. Three answers:
 *
 *   kept      a row is there, or a recording of the same GET
 *   absent    a copy that would hold it does not: observed, and good enough for
 *             what is optional
 *   unasked   no copy vouches: kubelet gets 503, and the pod waits
 *
 * Kubelet starts no pod before it has read its node, its pods and the services.
 */

import { coversObject } from "../cache/containment.ts";
import type { Scope } from "../cache/scope.ts";
import type { Scopes } from "../cache/scopes.ts";
import { objectText } from "../front/node-view.ts";
import { needsOfPod, type Gap, type NeededObject, type PodNeeds } from "../kube/pod-needs.ts";
import { collectionPath } from "../kube/resource-path.ts";
import type { Store } from "../store/contract.ts";
import { newestPods, type OwnNode } from "./own-pods.ts";
import type { TokenVault } from "./token-vault.ts";

/** What is looked into. */
export interface CoverageParts {
  readonly scopes: Scopes;
  readonly store: Pick<Store, "listResponses" | "status">;
  readonly tokens: Pick<TokenVault, "find">;
  readonly node: OwnNode;
}

/** A pod with what its copies lack. */
export interface KeptPod {
  readonly needs: PodNeeds;
  readonly missing: readonly Gap[];
  readonly unknown: readonly Gap[];
}

/** What the copies say. */
export interface KeptPods {
  /** What stops every pod. */
  readonly node: readonly Gap[];
  readonly pods: readonly KeptPod[];
}

const KINDS = { configmaps: "ConfigMap", secrets: "Secret", persistentvolumeclaims: "claim" } as const;

/** Looks at every pod of the node that would be started again. */
export function keptPods(parts: CoverageParts): KeptPods {
  const { scopes, store, node } = parts;
  const copy = newestPods(scopes, node);
  if (copy === undefined)
    return { node: [gap("node", "pods", "kubelet has not listed its pods through Holdfast")], pods: [] };
  const { mode, sealing } = store.status();
  const lists = (["nodes", "services"] as const).filter(
    (resource) => ![...scopes.of(node.principal, "", "v1", resource)].some(({ listed }) => listed !== undefined),
  );
  const missing = [
    ...(mode === "memory" ? [gap("node", "disk", "what is kept lies in memory alone")] : []),
    ...lists.map((resource) => gap("node", resource, "kubelet has not listed them through Holdfast")),
  ];
  const look = new Look(parts, node, sealing === "memory");
  return { node: missing, pods: podsOf(copy).map((needs) => look.pod(needs)) };
}

function podsOf(copy: Scope): PodNeeds[] {
  using rows = copy.rows();
  if (rows === undefined) return [];
  return [...rows.items()].flatMap(({ meta }) => {
    const item = copy.item(meta.namespace, meta.name);
    const needs = item === undefined ? undefined : needsOfPod(objectText(copy, item));
    return needs ?? [];
  });
}

/** One look at everything; what several pods share is looked up once. */
class Look {
  readonly #kept = new Map<string, "kept" | "absent" | "unasked">();
  #recorded: ReadonlySet<string> | undefined;

  constructor(
    private readonly parts: CoverageParts,
    private readonly node: OwnNode,
    /** Nothing that is sealed can be opened after a restart. */
    private readonly losesSealed: boolean,
  ) {}

  pod(needs: PodNeeds): KeptPod {
    if (needs.isStatic) return { needs, missing: [], unknown: [] };
    return {
      needs,
      missing: [
        ...needs.objects.flatMap((object) => this.#object(needs, object) ?? []),
        ...needs.audiences.flatMap((audience) => this.#token(needs, audience) ?? []),
      ],
      unknown: [
        ...needs.objects
          .filter(({ resource }) => resource === "persistentvolumeclaims")
          .map(({ name }) => gap("claim", name, "its volume may lie beyond this machine")),
        ...needs.unsure.map((what) => gap("volume", what, "not judged")),
      ],
    };
  }

  #object({ namespace }: PodNeeds, { resource, name, isOptional }: NeededObject): Gap | undefined {
    const kind = KINDS[resource];
    const key = `${resource}/${namespace}/${name}`;
    const found = this.#kept.get(key) ?? this.#lookFor(resource, namespace, name);
    this.#kept.set(key, found);
    if (found === "unasked") return gap(kind, name, "never read through Holdfast");
    if (found === "absent") return isOptional ? undefined : gap(kind, name, "the API server has none");
    return resource === "secrets" && this.losesSealed
      ? gap(kind, name, "its sealing key dies with the process")
      : undefined;
  }

  #lookFor(resource: NeededObject["resource"], namespace: string, name: string): "kept" | "absent" | "unasked" {
    let isObserved = false;
    for (const scope of this.parts.scopes.of(this.node.principal, "", "v1", resource)) {
      if (scope.listed === undefined || !coversObject(scope.identity, namespace, name)) continue;
      if (scope.row(namespace, name) !== undefined) return "kept";
      isObserved = true;
    }
    const path = `${collectionPath({ group: "", version: "v1", resource, namespace })}/${encodeURIComponent(name)}`;
    if (this.#paths().has(path)) return "kept";
    return isObserved ? "absent" : "unasked";
  }

  /** Paths of the node's recorded GETs. */
  #paths(): ReadonlySet<string> {
    this.#recorded ??= new Set(
      this.parts.store
        .listResponses()
        .filter(({ key }) => key.principal === this.node.principal)
        .map(({ key }) => key.target.split("?", 1)[0]!),
    );
    return this.#recorded;
  }

  #token({ namespace, name, uid, serviceAccount }: PodNeeds, audience: string): Gap | undefined {
    const spec = {
      audiences: audience === "" ? [] : [audience],
      boundKind: "Pod",
      boundName: name,
      boundUid: uid,
    };
    const what = audience === "" ? serviceAccount : `${serviceAccount} for ${audience}`;
    if (this.parts.tokens.find({ namespace, serviceAccount, spec }, () => true) === undefined)
      return gap("token", what, "never asked for through Holdfast");
    return this.losesSealed ? gap("token", what, "its sealing key dies with the process") : undefined;
  }
}

function gap(kind: string, name: string, why: string): Gap {
  return { kind, name, why };
}
