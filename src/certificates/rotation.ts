/**
 * Renews a certificate of the node through the API server.
 *
 *   moment has come -> key on disk -> POST the request -> wait -> issued  -> pair on disk -> in use
 *                                                           |-> denied, failed: back off, another key
 *                                                           |-> gone: another request
 *                                                           '-> waits for hours: so do we, over restarts
 *
 * Nothing here ends anything: while cut, or refused, what there is goes on
 * being used, and a condition says what to do. The request's name comes from
 * its key, so an answer that was lost costs no second request.
 */

import { createPrivateKey } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { Clock } from "../base/clock.ts";
import type { Finding } from "../base/conditions.ts";
import type { Log } from "../base/log.ts";
import { cutText } from "../base/units.ts";
import type { KeyPair } from "./authority.ts";
import { newKey, requestName } from "./client-request.ts";
import { validityOf, type Renewals } from "./renewals.ts";
import { REQUESTS, signingAnswerOf, type Judgement } from "./signing-answer.ts";

/** Which certificate it is. */
export interface RotationRole {
  /** In words: "node certificate". */
  readonly what: string;
  /** As `holdfast cert` names it; its request under way lies in STATE/pki/NAME-request.json. */
  readonly name: string;
  /** The present one, PEM; undefined while there is none. */
  current(): string | undefined;
  /** When another one is wanted, ms since the epoch; Infinity while it cannot be said what it should be. */
  dueMs(): number;
  /** The CertificateSigningRequest to send. */
  request(keyPem: string): object;
  /** Why what was issued is no use; undefined when it is. */
  problem(pair: KeyPair, nowMs: number): string | undefined;
  /** Writes it, and uses it from then on. @throws the system's error. */
  keep(pair: KeyPair): void;
}

/** What renewing needs. */
export interface RotationParts {
  readonly stateDir: string;
  readonly role: RotationRole;
  readonly renewals: Renewals;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly isOnline: () => boolean;
  /** Asks the API server with our present certificate; bounded in time. @throws when nobody answers. */
  readonly ask: (method: "GET" | "POST", target: string, body?: string) => Promise<Answer>;
  /** Is told how it stands: undefined when all is well. */
  readonly onFinding: (finding: Finding | undefined) => void;
  /** Another pair is in use. */
  readonly onRenewed: () => void;
}

/** An answer of the API server. */
export interface Answer {
  readonly status: number;
  readonly body: string;
}

const LOOK_EVERY_MS = 60_000;
/** A signer answers within a second; a person may take hours. */
const FIRST_POLL_MS = 500;
const FIRST_POLLS = 10;
const POLL_EVERY_MS = 60_000;
/** After a no; doubled each time, up to an hour. */
const FIRST_BACKOFF_MS = 60_000;
const MAX_BACKOFF_MS = 3_600_000;
/** From then on people are told that it waits. */
const PATIENCE_MS = 5 * 60_000;

const pendingSchema = v.object({ keyPem: v.string(), sinceMs: v.number() });
type Pending = v.InferOutput<typeof pendingSchema>;

/** What came of a renewal, for who asked for it. */
export type RenewalOutcome = "renewed" | "waiting" | "not renewed";

/** The rotation of one certificate. */
export class Rotation {
  readonly #path: string;
  #pending: Pending | undefined;
  #isSent = false;
  #isForced = false;
  #isBusy = false;
  #isStopped = false;
  #polls = 0;
  #failures = 0;
  #finding: Finding | undefined;
  #retryAtMs = 0;
  #cancel = () => {};

  constructor(private readonly parts: RotationParts) {
    this.#path = join(parts.stateDir, "pki", `${parts.role.name}-request.json`);
    this.#pending = readPending(this.#path);
  }

  /** The request that is under way; undefined when there is none. */
  get pendingName(): string | undefined {
    return this.#pending === undefined ? undefined : requestName(this.#pending.keyPem);
  }

  /** When the present certificate is renewed, ms since the epoch. */
  get dueMs(): number {
    return this.parts.role.dueMs();
  }

  /** Why it is not renewed; undefined while nothing stands in the way. */
  get finding(): Finding | undefined {
    return this.#finding;
  }

  /** Begins to look. */
  start(): void {
    this.#schedule(0);
  }

  /** The link is up: what waited for it goes on. */
  nudge(): void {
    if (!this.#isStopped) this.#schedule(0);
  }

  /** Ends; what is under way stays on disk. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel();
  }

  /** Renews now, whatever the moment. @param patienceMs how long is waited for the signer. */
  async rotate(patienceMs: number): Promise<RenewalOutcome> {
    const { role } = this.parts;
    const before = role.current();
    this.#isForced = true;
    this.#retryAtMs = 0;
    const untilMs = this.parts.clock.monotonicMs() + patienceMs;
    for (let waitMs = 0; this.parts.clock.monotonicMs() + waitMs < untilMs; waitMs = 100) {
      await new Promise<void>((resolve) => void this.parts.clock.after(waitMs, resolve));
      await this.#look();
      if (role.current() !== before) return "renewed";
      if (this.#finding !== undefined && (this.#pending === undefined || !this.#isSent)) return "not renewed";
    }
    return this.#pending === undefined ? "not renewed" : "waiting";
  }

  #schedule(delayMs: number): void {
    this.#cancel();
    this.#cancel = this.parts.clock.after(delayMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    if (this.#isBusy || this.#isStopped) return;
    this.#isBusy = true;
    let nextMs = LOOK_EVERY_MS;
    try {
      nextMs = await this.#step();
    } catch (error) {
      // Nobody answered, or the disk refused: the link's matter, or the store's; it is tried again.
      this.parts.log.warn(`the ${this.parts.role.what} could not be renewed yet`, {
        reason: String((error as { code?: unknown }).code ?? (error as Error).name),
      });
    } finally {
      this.#isBusy = false;
    }
    if (!this.#isStopped) this.#schedule(nextMs);
  }

  /** @returns when to look again. */
  async #step(): Promise<number> {
    const { renewals, clock, isOnline } = this.parts;
    if (!isOnline()) return LOOK_EVERY_MS;
    const restMs = this.#retryAtMs - clock.monotonicMs();
    if (restMs > 0) return Math.min(restMs, LOOK_EVERY_MS);
    if (this.#pending === undefined) {
      const dueInMs = this.dueMs - renewals.nowMs();
      if (dueInMs > 0 && !(this.#isForced && Number.isFinite(dueInMs))) return Math.min(dueInMs, LOOK_EVERY_MS);
      this.#begin();
    }
    if (!this.#isSent && !(await this.#send())) return LOOK_EVERY_MS;
    return this.#await();
  }

  /** The key is on disk before anybody is asked: an issued certificate without it is worth nothing. */
  #begin(): void {
    const pending = { keyPem: newKey(), sinceMs: this.parts.renewals.nowMs() };
    writeFileAtomically(this.#path, JSON.stringify(pending), 0o600);
    this.#pending = pending;
    this.#isSent = false;
    this.#polls = 0;
  }

  async #send(): Promise<boolean> {
    const { keyPem } = this.#pending!;
    const body = JSON.stringify(this.parts.role.request(keyPem));
    const { status } = await this.parts.ask("POST", REQUESTS, body);
    // 409: it is there already, and its answer was lost.
    this.#isSent = status === 201 || status === 409;
    if (!this.#isSent) this.#refused(status);
    return this.#isSent;
  }

  async #await(): Promise<number> {
    const pending = this.#pending!;
    const { status, body } = await this.parts.ask("GET", `${REQUESTS}/${requestName(pending.keyPem)}`);
    if (status === 404) {
      // Swept away: the control plane keeps a request that nobody answers for a day.
      this.#end();
      return this.#backOff();
    }
    if (status !== 200) {
      this.#refused(status);
      return LOOK_EVERY_MS;
    }
    const answer = signingAnswerOf(body);
    if (answer.kind === "waiting") return this.#waits(pending);
    if (answer.kind === "no") this.#denied(answer.no);
    else this.#issued(answer.certPem, pending);
    return Math.min(LOOK_EVERY_MS, Math.max(0, this.dueMs - this.parts.renewals.nowMs()));
  }

  #issued(certPem: string, { keyPem }: Pending): void {
    const { role, renewals, log, onRenewed } = this.parts;
    const problem = role.problem({ certPem, keyPem }, renewals.nowMs());
    if (problem !== undefined) return this.#denied({ type: "Unusable", reason: problem });
    role.keep({ certPem, keyPem });
    // Signers date back by minutes; where a life is minutes too, it counts from now.
    const { notBeforeMs, notAfterMs } = validityOf(certPem);
    renewals.momentOf(certPem, { notBeforeMs: Math.max(notBeforeMs, renewals.nowMs()), notAfterMs });
    this.#end();
    this.#isForced = false;
    this.#failures = 0;
    this.#tell(undefined);
    log.info(`the ${role.what} is renewed`, { until: new Date(notAfterMs).toISOString() });
    onRenewed();
  }

  #waits({ sinceMs, keyPem }: Pending): number {
    const name = requestName(keyPem);
    const minutes = Math.floor((this.parts.renewals.nowMs() - sinceMs) / 60_000);
    this.#tell(
      minutes * 60_000 < PATIENCE_MS
        ? undefined
        : {
            reason: "Pending",
            message: `The request for another ${this.parts.role.what} has waited ${minutes} minutes for approval`,
            next: `Look and approve: kubectl describe csr ${name}; kubectl certificate approve ${name}`,
          },
    );
    const doublings = Math.max(0, this.#polls++ - FIRST_POLLS);
    return Math.min(POLL_EVERY_MS, FIRST_POLL_MS * 2 ** Math.min(doublings, 10));
  }

  /** Another key the next time: the same request would be found denied again. */
  #denied({ type, reason = "", message = "" }: Judgement): void {
    const name = this.pendingName!;
    this.#end();
    const inMs = this.#backOff();
    const words = [reason, message].filter((text) => text !== "").join(": ");
    this.#tell({
      reason: type,
      message: `The request for another ${this.parts.role.what} is ${type.toLowerCase()}${words === "" ? "" : ` (${cutText(words, 200)})`}; tried again in ${Math.ceil(inMs / 60_000)} minutes`,
      next: `See: kubectl describe csr ${name}; then: holdfast cert rotate ${this.parts.role.name}`,
    });
  }

  #refused(status: number): void {
    this.#backOff();
    if (status >= 500 || status === 429) return;
    const current = this.parts.role.current();
    const isExpired = current !== undefined && validityOf(current).notAfterMs < this.parts.renewals.nowMs();
    this.#tell({
      reason: status === 401 ? "Unauthorized" : "Refused",
      message: `The API server refuses the request for another ${this.parts.role.what} (${status})${isExpired ? ": the present one has expired, and what is kept goes on being served" : ""}`,
      next:
        status === 401
          ? "Join the node again: kubeadm token create on the control plane, and put the new pair into the kubeconfig"
          : "Look: kubectl auth can-i create certificatesigningrequests.certificates.k8s.io --as system:node:NAME --as-group system:nodes",
    });
  }

  #backOff(): number {
    const fullMs = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(this.#failures++, 10));
    const delayMs = fullMs * (0.5 + this.parts.random() / 2);
    this.#retryAtMs = this.parts.clock.monotonicMs() + delayMs;
    return delayMs;
  }

  #tell(finding: Finding | undefined): void {
    this.#finding = finding;
    this.parts.onFinding(finding);
  }

  #end(): void {
    this.#pending = undefined;
    rmSync(this.#path, { force: true });
  }
}

function readPending(path: string): Pending | undefined {
  try {
    const read = v.safeParse(pendingSchema, JSON.parse(readFileSync(path, "utf8")));
    if (!read.success) return undefined;
    createPrivateKey(read.output.keyPem);
    return read.output;
  } catch {
    return undefined;
  }
}
