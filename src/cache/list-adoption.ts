/**
 * A scope's first list, taken from an answer that was on its way to a client.
 *
 * The client asked the API server itself; reading along saves the uplink a
 * second list. Whatever goes wrong here is no concern of that client.
 */

import { EdgeError } from "../base/errors.ts";
import { MalformedError, type ListHead, type ListReader } from "../kube/codec.ts";
import { codecFor, mediaType } from "../kube/representation.ts";
import type { Copy, ListWriter } from "../store/contract.ts";
import { CopyDroppedError } from "../store/errors.ts";

/** Takes a forwarded list's decoded bytes beside the client's own copy of them. */
export class ListAdoption {
  #reader: ListReader | undefined;
  #writer: ListWriter | undefined;
  #contentType = "";

  constructor(
    private readonly copy: Copy,
    private readonly limits: { readonly scopeMaxItems: number; readonly scopeMaxBytes: number },
    private readonly finish: (contentType: string, head: ListHead, writer: ListWriter) => void,
    /** One list at a time is read along for a scope: the others would be read for nothing. */
    private readonly place: { isTaken: boolean },
  ) {}

  /** Whether it still takes bytes. */
  get isReading(): boolean {
    return this.#reader !== undefined;
  }

  /** Begins, once the answer's head is known. @returns false if this answer cannot be kept. */
  begin(contentType: string): boolean {
    this.#contentType = mediaType(contentType);
    const codec = codecFor(this.#contentType);
    if (codec === undefined || this.place.isTaken) return false;
    try {
      this.#writer = this.copy.beginList();
    } catch (error) {
      // The scope was dropped while the client's request was on its way: a refusal, or a lack of room.
      if (error instanceof CopyDroppedError) return false;
      throw error;
    }
    this.#reader = codec.listReader();
    this.place.isTaken = true;
    return true;
  }

  /** The next decoded bytes. A list that cannot be kept is given up without a word: the client has its answer. */
  push(chunk: Uint8Array): void {
    if (this.#reader === undefined || this.#writer === undefined) return;
    try {
      for (const item of this.#reader.push(chunk)) this.#writer.add(item);
      const { scopeMaxItems, scopeMaxBytes } = this.limits;
      if (this.#writer.itemCount > scopeMaxItems || this.#writer.itemBytes > scopeMaxBytes) this.abort();
    } catch (error) {
      if (!(error instanceof MalformedError) && !(error instanceof CopyDroppedError)) throw error;
      this.abort();
    }
  }

  /** The list came whole. */
  end(): void {
    if (this.#reader === undefined || this.#writer === undefined) return;
    const [reader, writer] = [this.#reader, this.#writer];
    this.#over();
    try {
      this.finish(this.#contentType, reader.end(), writer);
    } catch (error) {
      writer.abort();
      // Not a list, or a damaged row met while comparing: the client has its answer all the same.
      if (!(error instanceof EdgeError)) throw error;
    }
  }

  /** The list did not come whole. */
  abort(): void {
    this.#writer?.abort();
    this.#over();
  }

  #over(): void {
    if (this.#reader !== undefined) this.place.isTaken = false;
    this.#reader = this.#writer = undefined;
  }
}
