/**
 * The node condition `HoldfastReady`: whoever looks at nodes from the cloud
 * sees which of them could be cut off now without losing a pod.
 *
 * A strategic merge patch of this one condition, whose merge key is its type:
 * kubelet's own patches name their own conditions and leave it alone, as ours
 * leaves theirs. Written when it has changed, and never twice within five
 * minutes: every watcher of nodes hears of each write.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { cutText } from "../base/units.ts";

/** Its type. */
export const READY_CONDITION = "HoldfastReady";

/** What it says. */
export interface Readiness {
  readonly status: "True" | "False" | "Unknown";
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
}

/** What it is written with. */
export interface NodeConditionParts {
  readonly clock: Clock;
  readonly log: Log;
  /** How things stand. */
  readonly readiness: () => Readiness;
  /** Whether the API server may be written to now. */
  readonly mayWrite: () => boolean;
  /** Our node's object as last heard of, JSON; undefined where nobody follows it. */
  readonly ownNode: () => Uint8Array | undefined;
  /** Sends a patch of our node's status. @returns the answer's status; undefined when there was none. */
  readonly patch: (body: string) => Promise<number | undefined>;
}

const LOOK_EVERY_MS = 30_000;
const WRITE_EVERY_MS = 300_000;
const MAX_MESSAGE = 512;

/** Keeps it. */
export class NodeCondition {
  #written: Readiness | undefined;
  #writtenAtMs = -Infinity;
  #since: { readonly status: string; readonly at: string } | undefined;
  #cancel = () => {};
  #isStopped = false;

  constructor(private readonly parts: NodeConditionParts) {}

  /** Looks now and then, until stopped. */
  start(): void {
    if (this.#isStopped) return;
    this.#cancel = this.parts.clock.after(LOOK_EVERY_MS, () => {
      this.look()
        .catch((error) =>
          this.parts.log.warn("the node condition was not looked at", { reason: (error as Error).message }),
        )
        .finally(() => this.start());
    });
  }

  /** A look that is under way schedules no other. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel();
  }

  /** Writes it where it differs from what the cloud has, and has not been written just now. */
  async look(): Promise<void> {
    const { clock, mayWrite, readiness, patch, log } = this.parts;
    if (!mayWrite() || clock.monotonicMs() - this.#writtenAtMs < WRITE_EVERY_MS) return;
    const { status, reason, message } = readiness();
    const wanted = { status, reason, message: cutText(message, MAX_MESSAGE) };
    if (isSame(wanted, this.#present() ?? this.#written)) return;
    const now = new Date(clock.nowMs()).toISOString().replace(/\.\d+/, "");
    const since = this.#since?.status === wanted.status ? this.#since.at : now;
    const condition = { type: READY_CONDITION, ...wanted, lastHeartbeatTime: now, lastTransitionTime: since };
    this.#writtenAtMs = clock.monotonicMs();
    const answer = await patch(JSON.stringify({ status: { conditions: [condition] } }));
    if (answer === 200) {
      this.#written = wanted;
      this.#since = { status: wanted.status, at: since };
      return;
    }
    log.warn("the node condition was not written", {
      reason: answer === undefined ? "no answer" : `answered ${answer}`,
    });
  }

  /** As the cloud has it; undefined where nobody follows the node, or it is kept in another form. */
  #present(): Readiness | undefined {
    const bytes = this.parts.ownNode();
    if (bytes === undefined) return undefined;
    try {
      const { status } = JSON.parse(Buffer.from(bytes).toString("utf8")) as {
        status?: { conditions?: (Readiness & { type: string; lastTransitionTime?: string })[] };
      };
      const found = status?.conditions?.find(({ type }) => type === READY_CONDITION);
      if (found === undefined) return { status: "Unknown", reason: "", message: "" };
      this.#since = { status: found.status, at: found.lastTransitionTime ?? "" };
      return found;
    } catch {
      return undefined;
    }
  }
}

function isSame(one: Readiness, other: Readiness | undefined): boolean {
  return (
    other !== undefined && one.status === other.status && one.reason === other.reason && one.message === other.message
  );
}
