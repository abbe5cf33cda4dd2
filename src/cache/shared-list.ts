/**
 * A list that is answered here as the API server would.
 */

import type { Codec, Item } from "../kube/codec.ts";
import type { ScopeSnapshot } from "../store/contract.ts";
import type { ListPage } from "../uplink/scope-source.ts";

/** Items are handed on in batches of this many: a reader of ten thousand does not wait ten thousand times. */
const BATCH_ITEMS = 100;

/**
 * A page as the API server would have given it; there is no second one.
 *
 * @param snapshot disposed of once the page was read, or given up.
 */
export function pageOf(codec: Codec, snapshot: ScopeSnapshot, onBytes: (bytes: number) => void): ListPage {
  const { resourceVersion, shape } = snapshot.listed;
  return {
    codec,
    batches: batchesOf(snapshot, onBytes),
    head: () => ({ shape, resourceVersion, continueToken: "" }),
  };
}

async function* batchesOf(
  snapshot: ScopeSnapshot,
  onBytes: (bytes: number) => void,
): AsyncGenerator<readonly Item[], void> {
  using whole = snapshot;
  let batch: Item[] = [];
  for (const item of whole.items()) {
    batch.push(item);
    onBytes(item.bytes.length);
    if (batch.length < BATCH_ITEMS) continue;
    yield batch;
    batch = [];
  }
  yield batch;
}
