/**
 * Kubelet's registration of its node, where we and not the API server answered it.
 *
 * Kubelet registers once, at its start, and never looks again: told while cut
 * that its node exists (409), it would stay without one for ever if the cloud
 * had deleted it meanwhile. So what it sent is kept until the return, and goes
 * up in its place if the node is gone. Had kubelet not been started in the
 * cut, nothing is sent: without us it would not have registered either.
 */

import * as v from "valibot";
import type { Log } from "../base/log.ts";
import type { Store } from "../store/contract.ts";
import { headed, readHeaded } from "./headed-value.ts";

/** A body with its type. */
export interface RegistrationBody {
  readonly contentType: string;
  readonly body: Uint8Array;
}

const VALUE = "registration";
const headSchema = v.object({ contentType: v.string() });

/** The registration that waits, on disk: Holdfast may be started again in the same cut. */
export class Registration {
  constructor(
    private readonly store: Store,
    private readonly log: Log,
  ) {}

  /** Kubelet was told that its node exists. */
  answered({ contentType, body }: RegistrationBody): void {
    this.store.putValue(VALUE, headed({ contentType }, body));
  }

  /** What kubelet sent; undefined when nothing waits. */
  get waiting(): RegistrationBody | undefined {
    const kept = readHeaded(this.store.getValue(VALUE), headSchema);
    return kept === undefined ? undefined : { contentType: kept.head.contentType, body: kept.body };
  }

  /**
   * The API server has been asked for the node.
   *
   * @param send POSTs the registration in the node's name. @returns the status, or undefined when nobody answered.
   */
  async met(isThere: boolean, send: (registration: RegistrationBody) => Promise<number | undefined>): Promise<void> {
    const { waiting } = this;
    if (waiting === undefined) return;
    const status = isThere ? 200 : await send(waiting);
    // Nobody answered: the link is gone again, and the next return asks again.
    if (status === undefined || status >= 500) return;
    this.store.deleteValue(VALUE);
    if (isThere) return;
    if (status < 300) this.log.info("the node was registered anew, as kubelet asked while the link was cut");
    else
      this.log.error("the node is gone and could not be registered anew: restart kubelet on this machine", { status });
  }
}
