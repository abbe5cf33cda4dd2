/**
 * One request and its answer on their way through Holdfast.
 */

import { Cancel, type Ending } from "../base/cancel.ts";
import { Remembered } from "../base/remembered.ts";
import type { Peer } from "../callers/identify.ts";
import type { HeaderBlock, RequestHead } from "../http1/request-head.ts";
import { acceptedRepresentations, type Representation } from "../kube/representation.ts";
import type { Reply } from "./reply.ts";
import type { RequestBody } from "./request-body.ts";

/** A request on its way through Holdfast. */
export interface Exchange {
  readonly method: string;
  /** As sent. */
  readonly target: string;
  /** Names as sent, in order. */
  readonly headers: readonly (readonly [string, string])[];
  /** The first value of a header, by its lower-case name. */
  header(name: string): string | undefined;
  readonly socket: Peer;
  /** Bytes of the body that were announced: -1 when it comes in chunks, 0 for none. */
  readonly bodyLength: number;
  /** To be iterated once. */
  readonly body: RequestBody;
  readonly response: Reply;
  /** Aborts when the client goes away. */
  readonly signal: Ending;
  /** What the client accepts, best first. */
  readonly accepted: readonly Representation[];
}

const accepts = new Remembered<readonly Representation[]>(64, 1_024);

/** A client's request, put together from what its connection has read. */
export class ClientExchange implements Exchange {
  readonly method: string;
  readonly target: string;
  readonly headers: HeaderBlock["headers"];
  readonly bodyLength: number;
  readonly #block: HeaderBlock;
  /** Made when somebody asks for it: most answers are out before anybody could go away. */
  #cancel: Cancel | undefined;
  #isGone = false;

  constructor(
    { method, target, block }: RequestHead,
    readonly socket: Peer,
    readonly body: RequestBody,
    readonly response: Reply,
  ) {
    this.method = method;
    this.target = target;
    this.headers = block.headers;
    this.bodyLength = block.isChunked ? -1 : Math.max(0, block.length);
    this.#block = block;
  }

  header(name: string): string | undefined {
    return this.#block.byName.get(name);
  }

  get signal(): Ending {
    if (this.#cancel === undefined) {
      this.#cancel = new Cancel();
      if (this.#isGone) this.#cancel.cancel(new Error("client went away"));
    }
    return this.#cancel;
  }

  get accepted(): readonly Representation[] {
    return accepts.of(this.header("accept") ?? "", acceptedRepresentations);
  }

  /** The client is gone. */
  leave(): void {
    this.#isGone = true;
    this.#cancel?.cancel(new Error("client went away"));
  }
}
