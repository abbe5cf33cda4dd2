/**
 * What an answer of the API server teaches, whoever it was for.
 *
 *   a list              seeds its scope; one that claims to be recent tells where history stands
 *   an object           is recorded; 404 withdraws what was recorded
 *   a write             leaves the object it is answered with as the caller's own
 *   401, 403            take back what the caller could once read
 *   anything            tells that its caller is somebody to the API server
 */

import { type Asked, type AskedBetween, askedNow } from "../base/asked.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { FreshRights } from "../callers/fresh-rights.ts";
import type { Entered, Gate } from "../callers/gate.ts";
import type { Refusals } from "../callers/refusals.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Word } from "../kube/whose-word.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import { UpstreamRefusedError } from "../uplink/scope-source.ts";
import { CallerTap } from "./caller-tap.ts";
import type { Exchange } from "./exchange.ts";
import type { AnswerTap } from "./forward.ts";
import type { OwnWrites } from "../cache/own-writes.ts";
import type { Recordings } from "./recordings.ts";
import type { RequestInfo } from "./request-info.ts";
import { objectAsked, type CopyServer } from "./serve.ts";
import { RecordTap, type OnResourceVersion, type RefusedStatus } from "./taps.ts";
import { leavesObject, WriteTap } from "./write-tap.ts";

/** Where lessons go. */
export interface LessonParts {
  readonly gate: Gate;
  readonly scopes: Scopes;
  readonly copies: CopyServer;
  readonly recordings: Recordings;
  readonly writes: OwnWrites;
  readonly refusals: Refusals;
  readonly rights: FreshRights;
  readonly clock: Clock;
  readonly log: Log;
}

/** Draws them. */
export class Lessons {
  /** After the client has its answer: what is learned from it must not cost it a millisecond. */
  readonly #later = (task: () => void): void => {
    if (this.#waiting.push(task) === 1) this.parts.clock.after(0, () => this.#learn());
  };
  #waiting: (() => void)[] = [];

  constructor(private readonly parts: LessonParts) {}

  /** Learns from an answer, and of every caller whether the API server knows it. @param make told, as `onYes` is, when it asked. @param onYes it was answered with what it asked for. */
  tap(caller: Entered, make: (asked: Asked) => AnswerTap, onYes?: (asked: Asked) => void): AnswerTap {
    const { clock, gate } = this.parts;
    const asked = askedNow(clock);
    const isUnknown = caller.isStranger && !caller.isImpersonating;
    const onRefused = isUnknown ? () => void gate.refused(caller) : undefined;
    const onAccepted = () => {
      gate.accepted(caller, asked);
      onYes?.(asked);
    };
    return new CallerTap(onAccepted, onRefused, () => make(asked));
  }

  #learn(): void {
    const tasks = this.#waiting;
    this.#waiting = [];
    for (const task of tasks) task();
  }

  /** From the answer to a GET of an object or a document. */
  ofObject(exchange: Exchange, info: RequestInfo, caller: Entered, isObject: boolean, asked: Asked): RecordTap {
    const { copies, recordings, refusals, rights, writes } = this.parts;
    const best = exchange.accepted.slice(0, 1);
    return new RecordTap({
      later: this.#later,
      keep: (answer) => {
        if (!refusals.isLate(caller.principal, info, asked)) recordings.keep(exchange, info, caller.principal, answer);
      },
      isSame: (answer, encoding) => encoding === null && recordings.isSame(exchange, caller.principal, answer),
      isKept: () =>
        isObject &&
        copies.findObject({ accepted: best }, info, caller, (scope) => scope.state === "live") !== undefined,
      onRefused: async (status) => {
        if (status === 401) return this.unauthorized(caller);
        refusals.known(caller.principal, asked);
        const isKept = copies.kept(exchange, info, caller, isObject) !== undefined;
        await refusals.objectRefused(caller.principal, info, isKept);
      },
      onAllowed: () => {
        refusals.allowed(caller.principal, info, asked);
        if (isObject) rights.heard(caller, "get", info, asked);
      },
      onGone: () => {
        refusals.objectGone(caller.principal, info, recordings.find(exchange, info, caller.principal) !== undefined);
        if (isObject) writes.withdraw(objectAsked(info, caller));
      },
    });
  }

  /** What a write's answer leaves. Of where history stands it tells nothing: a write that changed nothing is answered with the object as old as it is. */
  ofWrite(info: RequestInfo, caller: Entered): AnswerTap {
    const { recordings, writes } = this.parts;
    const onStatus = (status: number, word: Word) => {
      if (status === 401 && word === "refusal") void this.unauthorized(caller);
    };
    if (caller.isImpersonating || !leavesObject(info)) return new WriteTap({ onStatus, later: this.#later });
    const onWritten = (contentType: string, body: Uint8Array) => {
      const written = writes.answered({ ...objectAsked(info, caller), verb: info.verb }, contentType, body);
      if (written?.isGone === true) recordings.forget(caller.principal, info);
    };
    return new WriteTap({ onStatus, onWritten, later: this.#later });
  }

  /** A list that claims to be recent is newer than what is held now, or the API server's history went back. */
  ofRecentList({ group, resource }: RequestInfo): OnResourceVersion {
    const { scopes } = this.parts;
    const held = scopes.newestHeld(group, resource);
    return (resourceVersion) => scopes.noticeResourceVersion(group, resource, resourceVersion, held);
  }

  /** An error that is the API server's refusal of a list or watch. @param asked when that was asked. */
  async refusedBy(error: unknown, caller: Entered, identity: ScopeIdentity, asked: AskedBetween): Promise<void> {
    if (!(error instanceof UpstreamRefusedError)) return;
    const { status } = error;
    if (status === 401 || status === 403 || status === 404) await this.refused(status, caller, identity, asked);
  }

  /** Takes back what a caller could once read. @param asked when that was asked. */
  async refused(status: RefusedStatus, caller: Entered, identity: ScopeIdentity, asked: AskedBetween): Promise<void> {
    if (status === 401) return this.unauthorized(caller);
    const { refusals, rights } = this.parts;
    rights.refused(caller);
    refusals.known(caller.principal, asked);
    if (!caller.isStranger) await refusals.collectionRefused(identity, status);
  }

  /** The credential itself was refused. Our own certificate refused is our trouble, not theirs: what runs must go on. */
  async unauthorized(caller: Entered): Promise<void> {
    const { gate, log, refusals, rights } = this.parts;
    rights.refused(caller);
    if (caller.principal.startsWith("certificate:")) {
      log.error("the API server does not accept the node's certificate (401): what is kept goes on being served");
      return;
    }
    // One token of a service account ends with its pod; the others' pods go on.
    if (await gate.refused(caller)) return;
    refusals.credentialRefused(caller.principal, caller.credential);
  }
}
