/**
 * What a copy cannot say by itself: how old it is, and how old things are now.
 *
 * kubectl prints a Warning header on stderr; other clients would log it with
 * every request, so only kubectl gets it, and only while the API server does
 * not answer for itself. A Table's ages are counted anew whenever it comes
 * from a copy: the API server would count them too.
 */

import { humanDuration } from "../kube/human-duration.ts";
import type { Item } from "../kube/codec.ts";
import { ageColumns, tableWithAgesOfNow, withAgesOfNow } from "../kube/table-ages.ts";
import type { ListedState, ScopeSnapshot, StoredResponse } from "../store/contract.ts";
import type { Exchange } from "./exchange.ts";

/** It names itself by its file: kubectl, kubectl.exe, kubectl-1.20. */
const KUBECTL = /^kubectl(?:[-_.]?v?\d[\w.]*)?(?:\.exe)?\//;

/**
 * The headers that say since when an answer is a copy (RFC 9111 had Warning; code 299 is what client-go reads).
 *
 * @param heardAtMs when the API server last spoke of this.
 */
export function copyHeaders(exchange: Exchange, heardAtMs: number, nowMs: number): Record<string, string> {
  if (!KUBECTL.test(exchange.header("user-agent") ?? "")) return {};
  const at = new Date(heardAtMs).toISOString().replace(/\.\d+/, "");
  const age = humanDuration(Math.max(0, nowMs - heardAtMs));
  return {
    Warning: `299 - "Holdfast: the API server does not answer; this is a copy, last heard of at ${at}, ${age} ago"`,
  };
}

/** Rows with the ages of now; the snapshot itself when it has none. */
export function agedSnapshot(snapshot: ScopeSnapshot, nowMs: number): ScopeSnapshot {
  const { listed } = snapshot;
  const columns = listed.shape.listKind === "Table" ? ageColumns(listed.shape.columnDefinitions) : [];
  return columns.length === 0 ? snapshot : new AgedSnapshot(snapshot, columns, laterOf(listed, nowMs));
}

/** One row with the age of now. */
export function agedRow(listed: ListedState, row: Uint8Array, nowMs: number): Uint8Array {
  const columns = listed.shape.listKind === "Table" ? ageColumns(listed.shape.columnDefinitions) : [];
  return columns.length === 0 ? row : withAgesOfNow(row, columns, laterOf(listed, nowMs));
}

/** A recorded Table with the ages of now; anything else as it is. */
export function agedResponse(response: StoredResponse, nowMs: number): StoredResponse {
  const start = Buffer.from(response.body.subarray(0, 32)).toString("latin1");
  if (!/^\s*\{\s*"kind":\s*"Table"/.test(start)) return response;
  return { ...response, body: tableWithAgesOfNow(response.body, Math.max(nowMs, response.storedAtMs)) };
}

/** A gateway without a battery boots in 1970: nothing is younger than it was when it was last heard of. */
function laterOf({ lastContactMs }: ListedState, nowMs: number): number {
  return Math.max(nowMs, lastContactMs);
}

class AgedSnapshot implements ScopeSnapshot {
  constructor(
    private readonly rows: ScopeSnapshot,
    private readonly columns: readonly number[],
    private readonly nowMs: number,
  ) {}

  get listed(): ListedState {
    return this.rows.listed;
  }

  get itemCount(): number {
    return this.rows.itemCount;
  }

  *itemSizes(): Iterable<number> {
    for (const { bytes } of this.items()) yield bytes.length;
  }

  *items(): Iterable<Item> {
    for (const item of this.rows.items())
      yield { meta: item.meta, bytes: withAgesOfNow(item.bytes, this.columns, this.nowMs) };
  }

  [Symbol.dispose](): void {
    this.rows[Symbol.dispose]();
  }
}
