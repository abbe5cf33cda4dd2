/**
 * A list that is answered here as the API server would.
 */

import type { Codec, Item } from "../kube/codec.ts";
import type { Selection } from "../kube/selectors.ts";
import type { ScopeSnapshot } from "../store/contract.ts";
import type { ListPage } from "../uplink/scope-source.ts";

/** The part of a snapshot that is selected; decided once, for sizes are asked for before items. */
export function selected(whole: ScopeSnapshot, selection: Selection, format: "json" | "protobuf"): ScopeSnapshot {
  const sizes: number[] = [];
  const isSelected: boolean[] = [];
  for (const item of whole.items()) {
    const matches = selection.matches(item, format);
    isSelected.push(matches);
    if (matches) sizes.push(item.bytes.length);
  }
  return {
    listed: whole.listed,
    itemCount: sizes.length,
    itemSizes: () => sizes,
    *items() {
      let index = 0;
      for (const item of whole.items()) if (isSelected[index++] === true) yield item;
    },
    [Symbol.dispose]: () => {},
  };
}

/** Items are handed on in batches of this many: a reader of ten thousand does not wait ten thousand times. */
const BATCH_ITEMS = 100;

/**
 * A page as the API server would have given it; there is no second one.
 *
 * @param snapshot disposed of once the page was read, or given up.
 */
export function pageOf(
  codec: Codec,
  snapshot: ScopeSnapshot,
  select: (whole: ScopeSnapshot) => ScopeSnapshot,
  onBytes: (bytes: number) => void,
): ListPage {
  const { resourceVersion, shape } = snapshot.listed;
  return {
    codec,
    batches: batches(snapshot, select, onBytes),
    head: () => ({ shape, resourceVersion, continueToken: "" }),
  };
}

async function* batches(
  snapshot: ScopeSnapshot,
  select: (whole: ScopeSnapshot) => ScopeSnapshot,
  onBytes: (bytes: number) => void,
): AsyncGenerator<readonly Item[], void> {
  using whole = snapshot;
  let batch: Item[] = [];
  for (const item of select(whole).items()) {
    batch.push(item);
    onBytes(item.bytes.length);
    if (batch.length < BATCH_ITEMS) continue;
    yield batch;
    batch = [];
  }
  yield batch;
}
