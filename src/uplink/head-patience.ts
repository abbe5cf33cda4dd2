/**
 * While an answer's head does not come, it is looked at why, once a second:
 * first whether the link is there, then whether the connection is.
 */

import type { Clock } from "../base/clock.ts";
import { Deadlines } from "../base/deadlines.ts";
import { DeadSockets, type Mortal } from "./dead-sockets.ts";

const LOOK_EVERY_MS = 1_000;
/** Where a look takes long, for sockets are many, it takes a fifth of the time at most. */
const SPARED = 5;
/** From this look on: a moment without radio kills no connection. */
const DEAD_FROM_LOOK = 4;

/** What is asked. */
export interface HeadPatienceParts {
  readonly clock: Clock;
  /** A request has waited for a second. */
  readonly onWaiting: () => void;
  /** In the place of the network: there are no sockets to look at. */
  readonly send?: unknown;
}

/** Waits with all requests. */
export class HeadPatience {
  readonly #looks: Deadlines;
  #nextMs = Number.NEGATIVE_INFINITY;

  /** @param standing connections that requests wait on. */
  constructor(
    private readonly parts: HeadPatienceParts,
    private readonly standing: ReadonlySet<Mortal>,
    private readonly look: () => DeadSockets = () => new DeadSockets(),
  ) {
    this.#looks = new Deadlines(parts.clock, LOOK_EVERY_MS);
  }

  /** A request was sent. @returns its head has come, or will not. */
  begin(): () => void {
    let looks = 0;
    const look = () => {
      if (++looks === 1) this.parts.onWaiting();
      if (this.parts.send !== undefined) return;
      if (looks >= DEAD_FROM_LOOK) this.#lookForDead();
      cancel = this.#looks.begin(look);
    };
    let cancel = this.#looks.begin(look);
    return () => cancel();
  }

  /** Of many that wait one looks for all. */
  #lookForDead(): void {
    const { clock } = this.parts;
    const beganMs = clock.monotonicMs();
    if (beganMs < this.#nextMs) return;
    const dead = this.look();
    this.#nextMs = beganMs + Math.max(LOOK_EVERY_MS / 2, SPARED * (clock.monotonicMs() - beganMs));
    if (!dead.isEmpty) for (const connection of [...this.standing]) connection.endDead(dead);
  }
}
