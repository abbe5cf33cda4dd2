/**
 * A whole list from the API server, page by page, into the store.
 *
 * Nothing counts before the last page: half a list read as a whole one would
 * tell a client that everything else was deleted.
 */

import type { Codec, ListHead } from "../kube/codec.ts";
import { isResourceVersion } from "../kube/resource-version.ts";
import type { Copy, ListWriter, ScopeIdentity } from "../store/contract.ts";
import { UpstreamRefusedError, type ListPage, type ScopeSource } from "../uplink/scope-source.ts";
import { ScopeTooLargeError } from "./scope-errors.ts";

/** A page of this many items: the size client-go uses. */
const PAGE_ITEMS = 500;

/** What to list, and where it goes. */
export interface WholeListOptions {
  /** What the list is to become. */
  readonly copy: Copy;
  readonly source: ScopeSource;
  readonly identity: ScopeIdentity;
  readonly limits: { readonly scopeMaxItems: number; readonly scopeMaxBytes: number };
  readonly signal: AbortSignal;
  /** The first answer's head is there: from now on it is a matter of bytes. */
  readonly onHead: () => void;
}

/** A complete list, not yet committed. */
export interface WholeList {
  readonly writer: ListWriter;
  readonly codec: Codec;
  readonly head: ListHead;
}

/**
 * Reads all pages of a list.
 *
 * @throws {UpstreamRefusedError} when the API server answers with something else.
 * @throws {ScopeTooLargeError} beyond the limits, or when the list cannot be kept.
 * @throws {UnreachableError} {MalformedError} when a page does not come whole.
 * @throws {CopyDroppedError} when the copy is dropped meanwhile.
 */
export async function readWholeList(options: WholeListOptions): Promise<WholeList> {
  const { copy, source, identity, signal } = options;
  let writer = copy.beginList();
  try {
    let continueToken = "";
    let limit = PAGE_ITEMS;
    for (;;) {
      const page = await source.list(identity, { limit, continueToken }, signal).catch((error: unknown) => {
        if (isExpired(error) && continueToken !== "") return undefined;
        throw error;
      });
      options.onHead();
      if (page === undefined) {
        // The pages outlived their snapshot: once more, in one piece.
        writer.abort();
        writer = copy.beginList();
        continueToken = "";
        limit = 0;
        continue;
      }
      const head = await readPage(page, writer, options);
      continueToken = head.continueToken;
      if (continueToken !== "") continue;
      if (!isResourceVersion(head.resourceVersion))
        throw new ScopeTooLargeError(`Cannot keep ${identity.resource}: its list carries no resourceVersion`);
      return { writer, codec: page.codec, head };
    }
  } catch (error) {
    writer.abort();
    throw error;
  }
}

async function readPage(page: ListPage, writer: ListWriter, options: WholeListOptions): Promise<ListHead> {
  const { scopeMaxItems, scopeMaxBytes } = options.limits;
  for await (const items of page.batches) {
    for (const item of items) writer.add(item);
    if (writer.itemCount > scopeMaxItems || writer.itemBytes > scopeMaxBytes)
      throw new ScopeTooLargeError(
        `Cannot keep ${options.identity.resource}: more than ${scopeMaxItems} items or ${scopeMaxBytes} bytes`,
      );
  }
  return page.head();
}

function isExpired(error: unknown): boolean {
  return error instanceof UpstreamRefusedError && error.status === 410;
}
