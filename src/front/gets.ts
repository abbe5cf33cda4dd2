/**
 * One GET, from end to end.
 *
 *   identify      callers/gate.ts: who asks, and whether the API server knows it
 *   understand    request-info.ts, route.ts: an object or a document, in which forms
 *   a live copy   may answer resourceVersion=0 of whom the API server allowed it just now
 *   forward       forward.ts: to the API server and back, unchanged; lessons.ts
 *                 records what came, and withdraws what is gone or refused
 *   else          link lost, too slow, 5xx: the newest that this caller was told
 *                 (serve.ts): an object in one of its copies, a recording of the
 *                 same answer, or what it wrote itself; never what was refused
 *                 since, never what a newer list no longer has
 *   nothing       503 that names what is kept instead (words.ts); never 404
 */

import type { Scopes } from "../cache/scopes.ts";
import type { FreshRights } from "../callers/fresh-rights.ts";
import type { Entered } from "../callers/gate.ts";
import type { Refusals } from "../callers/refusals.ts";
import { prefersYaml } from "../kube/representation.ts";
import type { Exchange } from "./exchange.ts";
import type { Forwarder } from "./forward.ts";
import type { Lessons } from "./lessons.ts";
import type { RequestInfo } from "./request-info.ts";
import { prefersJson } from "./route.ts";
import type { CopyServer } from "./serve.ts";
import { wordsFor } from "./words.ts";

/** What GETs are made of. */
export interface GetParts {
  readonly forwarder: Forwarder;
  readonly scopes: Scopes;
  readonly copies: CopyServer;
  readonly refusals: Refusals;
  readonly rights: FreshRights;
  readonly lessons: Lessons;
}

/** Answers GETs of objects and documents. */
export class Gets {
  constructor(private readonly parts: GetParts) {}

  /** @param isObject false for discovery and the like. */
  get(exchange: Exchange, info: RequestInfo, caller: Entered, isObject: boolean): Promise<void> | void {
    const { copies, forwarder, lessons, refusals, rights, scopes } = this.parts;
    const kept = () =>
      refusals.isRefused(caller.principal, info)
        ? undefined
        : copies.kept(exchange, info, caller, isObject, refusals.doubtedAtMs(caller.principal, info));
    const isProven = rights.isFresh(caller, "get", info);
    if (isObject && isProven && info.query.get("resourceVersion") === "0" && !prefersYaml(exchange.header("accept"))) {
      const live = copies.findObject(exchange, info, caller, (scope) => scope.state === "live");
      if (live !== undefined) return copies.object(exchange, live);
    }
    return forwarder.forward(exchange, caller, {
      ...(isObject && prefersJson(info, exchange.accepted) && exchange.accepted[0]?.format === "protobuf"
        ? { accept: "application/json" }
        : {}),
      words: () => wordsFor(info, caller, scopes),
      tap: lessons.tap(caller, (asked) => lessons.ofObject(exchange, info, caller, isObject, asked)),
      fallback: { find: kept },
    });
  }
}
