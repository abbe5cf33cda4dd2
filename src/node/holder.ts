/**
 * One node is one device: who came first holds it, a copy of its card is refused.
 *
 *   asked at each return, before any write of the node's goes up
 *
 *   nobody holds it    -> written down as ours, on condition that nobody was faster
 *   we hold it         -> nothing
 *   another holds it   -> barred: nothing goes up or comes down any more, we say so once in the node,
 *                         and look every half minute whether a person has given it free
 *
 * First come, first served, and never taken over: a holder that is silent is
 * cut, most likely, and goes on running its pods. That its board was replaced
 * only a person can know.
 *
 * What cannot be asked changes nothing: who was barred stays so, also over a
 * restart, and who was not is not.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Finding } from "../base/conditions.ts";
import type { Log } from "../base/log.ts";
import { HOLDER_ANNOTATION, holderWords, REFUSED_ANNOTATION, type HolderWords } from "../kube/node-holder.ts";

/** What it asks and tells. */
export interface HolderParts {
  /** This device, as `device-id.ts` names it. */
  readonly own: string;
  /** Undefined while our credential is no node's. */
  readonly nodeName: () => string | undefined;
  /** Asks for the node's metadata alone, or patches it (merge patch); also while barred. Undefined: no answer. */
  readonly ask: (
    name: string,
    patch: string | undefined,
    signal: AbortSignal,
  ) => Promise<{ readonly status: number; readonly body: string } | undefined>;
  /** The node as it was heard of last, JSON; undefined where nobody follows it. */
  readonly heard: () => Uint8Array | undefined;
  /** What is kept over a restart: the device that holds our node. */
  readonly kept: { read(): string | undefined; write(holder: string | undefined): void };
  /** Shuts everything, or opens it again. */
  readonly onBarred: (isBarred: boolean) => void;
  readonly clock: Clock;
  readonly log: Log;
}

const LOOK_EVERY_MS = 30_000;
const TRIES = 5;
const PATIENCE_MS = 5_000;

const metadata = v.object({
  resourceVersion: v.string(),
  annotations: v.nullish(v.record(v.string(), v.string()), {}),
});
const nodeSchema = v.object({ metadata });

/** Keeps a node one device. */
export class Holder {
  #holder: string | undefined;
  #isMet = false;
  #cancel = () => {};

  constructor(private readonly parts: HolderParts) {
    this.#holder = parts.kept.read();
    if (this.#holder === parts.own) this.#holder = undefined;
  }

  /** The device that is our node, where that is another one; undefined while we are it. */
  get heldBy(): string | undefined {
    return this.#holder;
  }

  /** Whether the API server has said that the node is ours, since our start. */
  get isOurs(): boolean {
    return this.#isMet && this.#holder === undefined;
  }

  /** Begins to look now and then. */
  start(signal: AbortSignal): void {
    if (this.#holder !== undefined) {
      this.parts.onBarred(true);
      void this.#look(signal);
    }
    const again = () => {
      this.#cancel = this.parts.clock.after(LOOK_EVERY_MS, () => {
        void this.#look(signal).finally(() => signal.aborted || again());
      });
    };
    again();
    signal.addEventListener("abort", () => this.#cancel(), { once: true });
  }

  /** Asks whose the node is, and makes it ours where it is nobody's. @returns whether we may be it. */
  async meet(signal: AbortSignal): Promise<boolean> {
    const name = this.parts.nodeName();
    if (name === undefined) return true;
    for (let attempt = 0; attempt < TRIES && !signal.aborted; attempt += 1) {
      const seen = await this.#read(name, signal);
      if (seen === undefined) break;
      this.#isMet = true;
      if (seen.holder === undefined) {
        const status = await this.#write(name, seen, HOLDER_ANNOTATION, signal);
        if (status === 409) continue;
        if (status === 200) this.#decide(undefined);
        break;
      }
      const isOurs = seen.holder === this.parts.own;
      // Said before the way up is shut, which ends what is under way.
      const isSaid = isOurs || seen.refused === this.parts.own || attempt === TRIES - 1;
      if (!isSaid && (await this.#write(name, seen, REFUSED_ANNOTATION, signal)) === 409) continue;
      this.#decide(isOurs ? undefined : seen.holder);
      break;
    }
    return this.#holder === undefined;
  }

  /** What everybody at this device is told while it is kept out. */
  keptOut(): string | undefined {
    if (this.#holder === undefined) return undefined;
    return `This device (${this.parts.own}) is kept out: node ${this.parts.nodeName() ?? ""} is the device ${this.#holder}; see: holdfast status`;
  }

  /** What is wrong with our being this node, in words. */
  finding(): Finding | undefined {
    const { own, nodeName } = this.parts;
    const name = nodeName() ?? "";
    if (this.#holder !== undefined)
      return {
        reason: "HeldByAnother",
        message: `Node ${name} is the device ${this.#holder}; this one, ${own}, has a copy of its identity and is kept out`,
        next: `Seal this card and join anew: holdfast image seal --root /. If that device was replaced by this one: kubectl annotate node ${name} ${HOLDER_ANNOTATION}-`,
      };
    const refused = this.#heard()?.refused;
    if (refused === undefined || refused === own) return undefined;
    return {
      reason: "Copied",
      message: `The device ${refused} has a copy of this node's identity and was kept out; this one, ${own}, is node ${name}`,
      next: `Seal that device's card. Once that is done: kubectl annotate node ${name} ${REFUSED_ANNOTATION}-`,
    };
  }

  async #look(signal: AbortSignal): Promise<void> {
    const heard = this.#heard();
    // While all is well the copy says it, and nothing is asked. A node that has just registered is nobody's yet.
    if (this.#holder !== undefined || (heard !== undefined && heard.holder !== this.parts.own)) await this.meet(signal);
  }

  /** What the copy says; undefined where there is none. */
  #heard(): HolderWords | undefined {
    const parsed = v.safeParse(nodeSchema, jsonOf(this.parts.heard()));
    return parsed.success ? holderWords(parsed.output.metadata.annotations) : undefined;
  }

  async #read(name: string, signal: AbortSignal): Promise<(HolderWords & { readonly version: string }) | undefined> {
    const answer = await this.#ask(name, undefined, signal);
    if (answer?.status !== 200) return undefined;
    const parsed = v.safeParse(nodeSchema, jsonOf(Buffer.from(answer.body)));
    if (!parsed.success) return undefined;
    const { resourceVersion, annotations } = parsed.output.metadata;
    return { ...holderWords(annotations), version: resourceVersion };
  }

  /** Only if nobody has written the node since. */
  async #write(
    name: string,
    { version }: { readonly version: string },
    annotation: string,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const { own, log } = this.parts;
    const patch = { metadata: { resourceVersion: version, annotations: { [annotation]: own } } };
    const status = (await this.#ask(name, JSON.stringify(patch), signal))?.status;
    if (status !== 200 && status !== 409)
      log.warn("the node's holder was not written down", { reason: `answered ${status ?? "nothing"}` });
    return status;
  }

  #ask(name: string, patch: string | undefined, signal: AbortSignal) {
    return this.parts.ask(name, patch, AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]));
  }

  #decide(holder: string | undefined): void {
    if (holder === this.#holder) return;
    this.#holder = holder;
    this.parts.kept.write(holder);
    const { own, log } = this.parts;
    if (holder === undefined) log.info("this device is the node now", { device: own });
    else log.error("this device has another's identity: it is kept out", { device: own, holder });
    this.parts.onBarred(holder !== undefined);
  }
}

function jsonOf(bytes: Uint8Array | undefined): unknown {
  try {
    return bytes === undefined ? undefined : JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    return undefined;
  }
}
