/**
 * A whole list from the API server, page by page, into the store.
 *
 * Nothing counts before the last page: half a list read as a whole one would
 * tell a client that everything else was deleted.
 */

import { MalformedError, type Codec, type ListHead } from "../kube/codec.ts";
import { codecFor, mediaType } from "../kube/representation.ts";
import { isResourceVersion } from "../kube/resource-version.ts";
import type { ListWriter, ScopeIdentity, Store } from "../store/contract.ts";
import { ScopeTooLargeError, UpstreamRefusedError } from "./scope-errors.ts";
import type { ScopeSource } from "../uplink/scope-source.ts";

/** A page of this many items: the size client-go uses. */
const PAGE_ITEMS = 500;

/** What to list, and where it goes. */
export interface WholeListOptions {
  readonly store: Store;
  readonly scopeId: number;
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
  readonly contentType: string;
  readonly head: ListHead;
}

/**
 * Reads all pages of a list.
 *
 * @throws {UpstreamRefusedError} when the API server answers with something else.
 * @throws {ScopeTooLargeError} beyond the limits, or when the list cannot be kept.
 * @throws {UnreachableError} {MalformedError} when a page does not come whole.
 */
export async function readWholeList(options: WholeListOptions): Promise<WholeList> {
  const { store, scopeId, source, identity, limits, signal } = options;
  let writer = store.beginList(scopeId);
  try {
    let continueToken = "";
    let limit = PAGE_ITEMS;
    for (;;) {
      const answer = await source.list(identity, { limit, continueToken }, signal);
      options.onHead();
      if (answer.status === 410 && continueToken !== "") {
        // The pages outlived their snapshot: once more, in one piece.
        writer.abort();
        writer = store.beginList(scopeId);
        continueToken = "";
        limit = 0;
        continue;
      }
      if (answer.status !== 200) throw await UpstreamRefusedError.from(answer);
      const contentType = mediaType(answer.header("content-type") ?? "");
      const codec = codecFor(contentType);
      if (codec === undefined)
        throw new ScopeTooLargeError(`Cannot keep ${identity.resource}: the API server answered in an unknown format`);
      const reader = codec.listReader();
      for await (const chunk of answer.chunks) {
        for (const item of reader.push(chunk)) writer.add(item);
        if (writer.itemCount > limits.scopeMaxItems || writer.itemBytes > limits.scopeMaxBytes) {
          throw new ScopeTooLargeError(
            `Cannot keep ${identity.resource}: more than ${limits.scopeMaxItems} items or ${limits.scopeMaxBytes} bytes`,
          );
        }
      }
      const head = reader.end();
      continueToken = head.continueToken;
      if (continueToken !== "") continue;
      if (!isResourceVersion(head.resourceVersion))
        throw new ScopeTooLargeError(`Cannot keep ${identity.resource}: its list carries no resourceVersion`);
      return { writer, codec, contentType, head };
    }
  } catch (error) {
    writer.abort();
    // A reader that trips over its own input must not look like a fault of ours.
    throw error instanceof RangeError || error instanceof SyntaxError
      ? new MalformedError("Cannot read a list: its bytes are no list", { cause: error })
      : error;
  }
}
