/**
 * Events for people: what the guard did, on the object that it did it to.
 *
 * Bounded: a control plane in trouble must not be flooded by the one who is to
 * help it. What finds no room is counted and left out; metrics have it all.
 */

import type { CoreV1Event } from "@kubernetes/client-node";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Metric } from "../base/metrics.ts";
import { sent } from "../kube/wire.ts";
import type { ClusterApi } from "../cluster/api.ts";
import { describe, pause } from "../cluster/follow.ts";

/** One Event. */
export interface Happening {
  readonly kind: "Node" | "Pod" | "CertificateSigningRequest";
  /** Empty for what lives in no namespace. */
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  /** At most 1,024 characters are kept. */
  readonly message: string;
}

const MOST_WAITING = 200;
const EVERY_MS = 100;
const API_VERSIONS = { Node: "v1", Pod: "v1", CertificateSigningRequest: "certificates.k8s.io/v1" } as const;

/** A queue of Events on their way. */
export class Happenings {
  readonly #waiting: Happening[] = [];
  #wake: () => void = () => {};

  constructor(
    private readonly options: {
      readonly api: ClusterApi;
      readonly clock: Clock;
      readonly log: Log;
      readonly signal: AbortSignal;
      readonly instance: string;
      /** Counts what was left out. */
      readonly dropped: Metric;
    },
  ) {}

  /** Takes one, or counts it when there is no room. */
  tell(happening: Happening): void {
    if (this.#waiting.length >= MOST_WAITING) return this.options.dropped.add();
    this.#waiting.push(happening);
    this.#wake();
  }

  /** Sends until the signal comes. */
  async run(): Promise<void> {
    const { clock, log, signal } = this.options;
    signal.addEventListener("abort", () => this.#wake(), { once: true });
    while (!signal.aborted) {
      const next = this.#waiting.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        continue;
      }
      try {
        await this.#send(next);
      } catch (error) {
        this.options.dropped.add();
        log.warn("cannot write an Event", { reason: describe(error) });
      }
      await pause(clock, EVERY_MS, signal);
    }
  }

  async #send({ kind, namespace, name, uid, type, reason, message }: Happening): Promise<void> {
    const { api, clock, instance } = this.options;
    const at = new Date(clock.nowMs()).toISOString();
    const within = namespace === "" ? "default" : namespace;
    const suffix = `${clock.nowMs().toString(16)}${Math.floor(Math.random() * 0xffff).toString(16)}`;
    const event = sent<CoreV1Event>()({
      apiVersion: "v1",
      kind: "Event",
      metadata: { name: `${name.slice(0, 200)}.${suffix}`, namespace: within },
      involvedObject: { apiVersion: API_VERSIONS[kind], kind, name, uid, ...(namespace === "" ? {} : { namespace }) },
      type,
      reason,
      message: message.slice(0, 1_024),
      source: { component: "holdfast-guard", host: instance },
      reportingComponent: "holdfast.dev/guard",
      reportingInstance: instance,
      action: reason,
      firstTimestamp: at.replace(/\.\d+Z$/, "Z"),
      lastTimestamp: at.replace(/\.\d+Z$/, "Z"),
      eventTime: at.replace("Z", "000Z"),
      count: 1,
    });
    await api.createEvent(within, event);
  }
}
