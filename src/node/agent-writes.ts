/**
 * Writes of node agents: a CNI plugin that annotates the pod it wires, and
 * without whose annotation the pod would not start.
 *
 * Answered while cut are named service accounts alone, for this node's own
 * pods and node, where the API server has let them write the same before
 * (`seen-rights.ts`). After a first success it is asked once how far the right
 * goes: every namespace, this one, or the one object. What is taken is said in
 * `agent-patch.ts`; it becomes an overlay, and goes up at the return
 * (`agent-return.ts`).
 */

import { betweenNow } from "../base/asked.ts";
import { parseExact } from "../kube/exact-json.ts";
import { unavailable } from "../kube/status-error.ts";
import type { FoundObject, Scopes } from "../cache/scopes.ts";
import type { Caller } from "../callers/identify.ts";
import type { RequestInfo } from "../front/request-info.ts";
import type { CopyServer } from "../front/serve.ts";
import { changesOf, type AgentWrite } from "./agent-patch.ts";
import { keptObject } from "./kept-object.ts";
import type { Overlays } from "./overlays.ts";
import type { OwnNode } from "./own-pods.ts";
import type { Fields } from "./pod-status.ts";
import type { Right, SeenRights } from "./seen-rights.ts";
import type { Write, WriteRow } from "./write.ts";

/** Asks the API server, with the caller's own credential, whether it has this right. @returns undefined when it did not say. */
export type AskRight = (caller: Caller, right: Right) => Promise<boolean | undefined>;

/** What agents' writes are answered with. */
export interface AgentParts {
  readonly copies: CopyServer;
  readonly overlays: Overlays;
  readonly rights: SeenRights;
  readonly scopes: Scopes;
  readonly ownNode: () => OwnNode | undefined;
  /** User names of service accounts. */
  readonly agents: readonly string[];
  readonly askRight: AskRight;
}

const PRINCIPAL = /^serviceaccount:([^:]+):([^:]+):/;

/** The row of such a write; empty for whoever is not named. */
export function agentRow(parts: AgentParts, write: Write): WriteRow {
  const { overlays, rights, copies } = parts;
  const asked = betweenNow();
  const { caller, exchange, info } = write;
  if (!isNamed(parts.agents, caller)) return {};
  const right = rightOf(info);
  const target = { resource: info.resource as "pods" | "nodes", namespace: info.namespace, name: info.name };
  const takesJson = exchange.accepted.some(({ format, as }) => format === "json" && as === "object");
  const found = () => ownObject(parts, target);
  const lay = (before: FoundObject) => {
    const sent = { ...target, ...write, verb: info.verb, subresource: info.subresource } as AgentWrite;
    const given = givenTo(parts, write);
    const changes = changesOf(sent, parse(before.item.bytes), given);
    const { principal } = caller;
    overlays.change(
      before,
      target,
      changes.map((change) => ({ ...change, principal, verb: sent.verb, subresource: sent.subresource })),
      given,
    );
    const after = found();
    if (after === undefined) throw unavailable(`Cannot change ${target.resource} "${target.name}": it is gone`);
    copies.object(exchange, after);
  };
  return {
    // What it was answered with is what its next write is made from: in a form that can be compared.
    ...(takesJson ? { accept: "application/json" } : {}),
    fallback: {
      givesWay: "storage",
      find: () => {
        const before = takesJson && rights.has(caller.principal, right) ? found() : undefined;
        return before === undefined ? undefined : () => lay(before);
      },
    },
    heard: (status) => {
      rights.heard(caller.principal, right, status, asked);
      if (status < 300) void widen(parts, caller, right);
    },
  };
}

/** A service account of the list, known by a token of its own. */
function isNamed(agents: readonly string[], { principal }: Caller): boolean {
  const [, namespace, name] = PRINCIPAL.exec(principal) ?? [];
  return name !== undefined && agents.includes(`system:serviceaccount:${namespace}:${name}`);
}

function rightOf({ verb, group, resource, subresource, namespace, name }: RequestInfo): Right {
  return { verb, group, resource, subresource, namespace, name };
}

/** How far a right goes that was seen for one object; asked once for a run of Holdfast. */
async function widen({ rights, askRight }: AgentParts, caller: Caller, { name: _, ...right }: Right): Promise<void> {
  for (const wider of [{ ...right, namespace: "*" }, right]) {
    if (rights.has(caller.principal, wider)) return;
    if (!rights.isToAsk(caller.principal, wider)) continue;
    const asked = betweenNow();
    if ((await askRight(caller, wider)) === true) return rights.allowed(caller.principal, wider, asked);
  }
}

/** The object in the node's own copy, if it is the node or one of its pods. */
function ownObject(
  { scopes, ownNode }: AgentParts,
  target: { readonly resource: "pods" | "nodes"; readonly namespace: string; readonly name: string },
): FoundObject | undefined {
  const node = ownNode();
  if (node === undefined || (target.resource === "nodes" && target.name !== node.name)) return undefined;
  const found = keptObject(scopes, node.principal, target);
  if (found === undefined || target.resource === "nodes") return found;
  const { spec } = parse(found.item.bytes) as { readonly spec?: Fields };
  return spec?.["nodeName"] === node.name ? found : undefined;
}

/** What a GET of this caller is answered with now: a PUT may have been made from it. */
function givenTo({ copies }: AgentParts, { exchange, info, caller }: Write): Fields | undefined {
  const ofObject = (path: string) => (info.subresource === "" ? path : path.slice(0, -info.subresource.length - 1));
  const asked: RequestInfo = {
    ...info,
    method: "GET",
    verb: "get",
    subresource: "",
    path: ofObject(info.path),
    canonicalPath: ofObject(info.canonicalPath),
    query: new URLSearchParams(),
  };
  const kept = copies.keptObject(exchange, asked, caller);
  return kept?.contentType === "application/json" ? parse(kept.body) : undefined;
}

function parse(bytes: Uint8Array): Fields {
  return parseExact(bytes) as Fields;
}
