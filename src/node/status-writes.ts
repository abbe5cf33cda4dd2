/**
 * One status patch of kubelet's, from its arrival to its readers:
 *
 *   front/node-write.ts   names it: a PATCH of the status of a pod or the own node
 *   node-writes.ts        sends it up; this row answers where nobody can be asked
 *   overlays.ts           finds kubelet's own copy, merges (status-patch.ts), keeps
 *                         the outcome, and lays it over the row of every copy
 *                         in plain JSON, under a resourceVersion of ours
 *   cache                 each copy's layer holds it, and open watches are told MODIFIED
 *   reconnect.ts          ends it, when the cloud's truth was handed down
 */

import type { Scopes } from "../cache/scopes.ts";
import type { CopyServer } from "../front/serve.ts";
import { keptObject } from "./kept-object.ts";
import type { Overlays } from "./overlays.ts";
import type { StatusTarget } from "./status-patch.ts";
import type { Write, WriteRow } from "./write.ts";

interface StatusParts {
  readonly copies: CopyServer;
  readonly overlays: Overlays;
  readonly scopes: Scopes;
}

/** The row of a status patch. */
export function statusRow({ copies, overlays, scopes }: StatusParts, write: Write): WriteRow {
  const { exchange, info, caller, body, contentType } = write;
  const target: StatusTarget = {
    resource: info.resource as StatusTarget["resource"],
    namespace: info.namespace,
    name: info.name,
  };
  const takesJson = exchange.accepted.some(({ format, as }) => format === "json" && as === "object");
  return {
    fallback: {
      givesWay: "storage",
      find: () =>
        takesJson && keptObject(scopes, caller.principal, target) !== undefined
          ? () => copies.object(exchange, overlays.patchStatus(caller.principal, target, { contentType, body }))
          : undefined,
    },
  };
}
