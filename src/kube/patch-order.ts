/**
 * The order of a merged list, as `$setElementOrder` wants it: Go's own, step by step.
 *
 * Source: k8s.io/apimachinery/pkg/util/strategicpatch 0.37, normalizeElementOrder.
 */

import { findItem, isSame, keyOf, scalar, scalarSet, type Value } from "./patch-values.ts";

/** A list, by who speaks of its items. */
export interface Parts {
  /** Items that the patch speaks of, and items that only the server has. */
  readonly named: Value[];
  readonly serverOnly: Value[];
}

/** Tells the items that the patch speaks of from those that only the server has. */
export function partition(list: Value[], by: Value[], mergeKey: string): Parts {
  const names = mergeKey === "" ? scalarSet(by) : undefined;
  const isNamed = (item: Value) =>
    names === undefined ? findItem(by, mergeKey, keyOf(item, mergeKey)) >= 0 : names.has(scalar(item));
  const named: Value[] = [];
  const serverOnly: Value[] = [];
  for (const item of list) (isNamed(item) ? named : serverOnly).push(item);
  return { named, serverOnly };
}

/** Named items by the patch's order, the server's own by theirs, and these put in before the first named item that they preceded. */
export function inOrder(
  parts: Parts,
  order: Value[],
  serverOrder: Value[],
  mergeKey: string,
  areMaps: boolean,
): Value[] {
  const placeOf = (list: Value[]) => {
    const identity = (item: Value) => (areMaps ? keyOf(item, mergeKey) : item);
    const identities = list.map(identity);
    return (item: Value) => identities.findIndex((known) => isSame(known, identity(item)));
  };
  const places = placeOf(serverOrder);
  const named = sorted(parts.named, placeOf(order));
  const serverOnly = sorted(parts.serverOnly, places);
  const result: Value[] = [];
  for (const item of named) {
    const place = places(item);
    while (serverOnly[0] !== undefined && isBefore(places(serverOnly[0]), place))
      result.push(...serverOnly.splice(0, 1));
    result.push(item);
  }
  return [...result, ...serverOnly];
}

function isBefore(left: number, right: number): boolean {
  return left >= 0 && right >= 0 && left < right;
}

/** Go's insertion sort: with an item that has no place the comparison is no order, and its outcome is that of this very sort. */
function sorted(list: Value[], placeOf: (item: Value) => number): Value[] {
  const ranked = list.map((item) => ({ item, place: placeOf(item) }));
  for (let end = 1; end < ranked.length; end++) {
    for (let at = end; at > 0; at--) {
      const left = ranked[at - 1];
      const right = ranked[at];
      if (left === undefined || right === undefined || !precedes(right.place, left.place)) break;
      ranked[at - 1] = right;
      ranked[at] = left;
    }
  }
  return ranked.map(({ item }) => item);
}

function precedes(left: number, right: number): boolean {
  return left < 0 || right < 0 || left < right;
}

/** Each scalar once, in Go's way, which fills the gap with the last item. */
export function withoutRepeats(list: Value[]): Value[] {
  const kept = [...list];
  for (let at = 0; at < kept.length; at++) {
    for (let other = at + 1; other < kept.length; other++) {
      if (kept[at] !== kept[other]) continue;
      const last = kept.pop();
      if (last !== undefined && other < kept.length) kept[other--] = last;
    }
  }
  return kept;
}
