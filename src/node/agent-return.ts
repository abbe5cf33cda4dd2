/**
 * What agents changed while cut goes up at the return, once.
 *
 * Of each object, caller and subresource one write, with the caller's own
 * credential and the verb it has used, once the cloud's truth has come down and
 * before kubelet writes: a strategic merge patch, or a PUT where the caller was
 * seen to update and may have no right to patch (Multus). It names UID and
 * resourceVersion of the object that it was judged by, so that nobody's write
 * in between is lost:
 *
 *   the value is what the agent wrote        nothing to do: it had gone up after all
 *   the value is what it was before the cut, goes up
 *   or what the agent wrote earlier in it
 *   it is another, or the UID is             dropped, and counted
 *
 * At 409 the object is read again and judged again. An answer that is lost is
 * no answer: the next round finds the value there. Who has not spoken since our
 * start has no credential here; its changes wait an hour for it.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { parseExact, writeExact, type Json } from "../kube/exact-json.ts";
import { conditionsOf, shown, valueOf, type Change } from "./overlay.ts";
import type { Overlays, WaitingChanges } from "./overlays.ts";
import type { OwnNode } from "./own-pods.ts";
import type { Fields } from "./pod-status.ts";
import type { StatusTarget } from "./status-patch.ts";

/** What the API server says of an object; undefined when it said nothing. */
export type ReadWord = { readonly kind: "there"; readonly bytes: Uint8Array } | { readonly kind: "gone" } | undefined;

/** What became of a write; "later" when it was not judged. */
export type WriteWord = "done" | "conflict" | "forbidden" | "refused" | "later";

/** What the return of agents' changes needs. */
export interface AgentReturnParts {
  readonly overlays: Overlays;
  readonly clock: Clock;
  readonly log: Log;
  readonly isOnline: () => boolean;
  readonly ownNode: () => OwnNode | undefined;
  /** Whether this caller has shown a credential since our start. */
  readonly hasCredential: (principal: string) => boolean;
  /** Reads the object as the node itself may. */
  readonly read: (target: StatusTarget, signal: AbortSignal) => Promise<ReadWord>;
  /** Sends a strategic merge patch, or a whole object where the verb is update, with the caller's credential. */
  readonly write: (group: WaitingChanges, body: string, signal: AbortSignal) => Promise<WriteWord>;
  /** The caller may not write this any more. */
  readonly onForbidden: (group: WaitingChanges) => void;
  /** Told how many were dropped and why. */
  readonly onDropped?: (count: number, reason: DropReason, target: StatusTarget) => void;
}

/** Why a change never went up. */
export type DropReason = "changed by somebody else" | "object gone" | "refused" | "its writer was not heard again";

type Outcome = "settled" | "waits";

const AT_ONCE = 8;
const ATTEMPTS = 4;
const AGAIN_MS = 10_000;
const PATIENCE_MS = 3_600_000;
/** kubelet and agents refresh these without saying anything new. */
const HEARTBEATS = ["lastHeartbeatTime", "lastProbeTime"];

/** Sends them up. */
export class AgentReturn {
  #dropped = 0;
  #sent = 0;
  #cancelAgain: (() => void) | undefined;
  #sinceMs = 0;

  constructor(private readonly parts: AgentReturnParts) {}

  /** Changes that have yet to go up. */
  get waiting(): number {
    return this.parts.overlays.waiting.reduce((sum, { changes }) => sum + changes.length, 0);
  }

  /** Changes that never went up, since start. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Changes that went up, since start. */
  get sent(): number {
    return this.#sent;
  }

  /** The link is back and the cloud's truth was handed down. @param signal aborts when the link is lost. */
  async sendUp(signal: AbortSignal): Promise<void> {
    this.#sinceMs = this.parts.clock.monotonicMs();
    await this.#round(signal);
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { clock, isOnline, log, overlays } = this.parts;
    this.#cancelAgain?.();
    const groups = [...overlays.waiting];
    if (groups.length === 0) return;
    const [sent, dropped] = [this.#sent, this.#dropped];
    let next = 0;
    let waiting = 0;
    const sendOn = async () => {
      for (let group = groups[next++]; group !== undefined && !signal.aborted; group = groups[next++])
        if ((await this.#send(group, signal)) === "waits") waiting++;
    };
    await Promise.all(Array.from({ length: AT_ONCE }, sendOn));
    log.info("changes of node agents made while cut", {
      sent: this.#sent - sent,
      dropped: this.#dropped - dropped,
      waiting,
    });
    if (waiting === 0 || signal.aborted) return;
    const again = () => {
      if (!signal.aborted && isOnline()) void this.#round(signal);
    };
    this.#cancelAgain = clock.after(AGAIN_MS, again);
  }

  async #send(group: WaitingChanges, signal: AbortSignal): Promise<Outcome> {
    const { clock, hasCredential, onForbidden, write } = this.parts;
    let live: ReadWord = this.#row(group);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      live ??= await this.parts.read(group, signal);
      if (live === undefined || signal.aborted) return "waits";
      const object = live.kind === "gone" ? undefined : (parseExact(live.bytes) as Fields);
      if (object === undefined || metadataOf(object)["uid"] !== group.uid) return this.#drop(group, "object gone");
      const todo = this.#judge(group, object);
      if (todo.length === 0) return "settled";
      if (!hasCredential(group.principal)) {
        const hasWaited = clock.monotonicMs() - this.#sinceMs >= PATIENCE_MS;
        return hasWaited ? this.#drop(group, "its writer was not heard again", todo) : "waits";
      }
      const word = await write(group, bodyOf(group, todo, object), signal);
      if (word === "done") {
        this.#sent += todo.length;
        this.parts.overlays.settled(group, todo);
        return "settled";
      }
      if (word === "forbidden") onForbidden(group);
      if (word === "forbidden" || word === "refused") return this.#drop(group, "refused", todo);
      if (word === "later") return "waits";
      live = undefined;
    }
    return "waits";
  }

  /** What the copies say, before anybody is asked. */
  #row(target: StatusTarget): ReadWord {
    const node = this.parts.ownNode();
    const row = node === undefined ? undefined : this.parts.overlays.rowOf(node.principal, target);
    return row === undefined ? undefined : { kind: "there", bytes: row.bytes };
  }

  /** Settles what needs nothing or is void. @returns the rest. */
  #judge(group: WaitingChanges, object: Fields): Change[] {
    const todo: Change[] = [];
    const there: Change[] = [];
    const foreign: Change[] = [];
    for (const change of group.changes) {
      const held = valueOf(object, change);
      if (saysSame(held, change.now)) there.push(change);
      else if (change.was.some((was) => saysSame(held, was))) todo.push(change);
      else foreign.push(change);
    }
    this.parts.overlays.settled(group, there);
    if (foreign.length > 0) this.#drop(group, "changed by somebody else", foreign);
    return todo;
  }

  #drop(group: WaitingChanges, reason: DropReason, changes: readonly Change[] = group.changes): "settled" {
    const { log, onDropped, overlays } = this.parts;
    const { resource, namespace, name } = group;
    this.#dropped += changes.length;
    log.warn("changes of a node agent dropped", { resource, namespace, name, count: changes.length, reason });
    onDropped?.(changes.length, reason, group);
    overlays.settled(group, changes);
    return "settled";
  }
}

function bodyOf(group: WaitingChanges, changes: readonly Change[], object: Fields): string {
  if (group.verb === "patch") return patchOf(changes, object);
  const { resource, namespace, name, uid } = group;
  const kind = resource === "pods" ? "Pod" : "Node";
  return writeExact({ kind, apiVersion: "v1", ...shown(object, { resource, namespace, name, uid, changes }) });
}

/** One strategic merge patch that makes these changes, of this very state of the object. */
function patchOf(changes: readonly Change[], object: Fields): string {
  const { uid, resourceVersion } = metadataOf(object);
  const mapOf = (field: Change["field"]) => {
    const entries = changes.filter((change) => change.field === field).map(({ key, now }) => [key, now] as const);
    return entries.length === 0 ? undefined : Object.fromEntries(entries);
  };
  const conditions = changes
    .filter(({ field }) => field === "conditions")
    .map(({ key, now }) => (now === null ? { type: key, $patch: "delete" } : replaced(object, key, now as Fields)));
  return writeExact({
    metadata: { uid, resourceVersion, labels: mapOf("labels"), annotations: mapOf("annotations") },
    ...(conditions.length === 0 ? {} : { status: { conditions } }),
  });
}

/** Items of a list are merged: what the present one says beyond the new one is taken away by name. */
function replaced(object: Fields, type: string, now: Fields): Fields {
  const present = conditionsOf(object).find((condition) => condition["type"] === type) ?? {};
  const nothing = Object.keys(present).filter((name) => !Object.hasOwn(now, name));
  return { ...now, ...Object.fromEntries(nothing.map((name) => [name, null])) };
}

function metadataOf(object: Fields): Fields {
  return (object["metadata"] ?? {}) as Fields;
}

function saysSame(left: Json, right: Json): boolean {
  return Bun.deepEquals(inWords(left), inWords(right));
}

/** A condition without its heartbeats, and without the nulls that the API server writes for times that are not set. */
function inWords(value: Json): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([name, of]) => of !== null && !HEARTBEATS.includes(name)));
}
