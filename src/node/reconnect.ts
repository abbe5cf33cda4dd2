/**
 * The order of things when the link returns.
 *
 *   authenticate, own node still there, and this device the one that it is?
 *   ->  nodes, pods, secrets, configmaps of the node: what changed is handed down
 *   ->  what agents changed goes up
 *   ->  kubelet's writes, everything else
 *   ->  edited copies end
 *   ->  events of the cut go up
 *
 * Kubelet's writes wait until it can have seen what the cloud decided
 * meanwhile; they do not wait long, for a write held too long is retried and
 * then stale. A node deleted meanwhile is no special case for the copies: its
 * DELETED event comes down like any other, only what was said of it is void.
 *
 * An API server that refuses our own certificate (401) is no return: what is
 * kept goes on being served, nothing is forgotten, and it is asked again every
 * half minute.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Overlays } from "./overlays.ts";
import type { Scope } from "../cache/scope.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { LinkView } from "../uplink/scope-source.ts";
import type { ScopeIdentity } from "../store/contract.ts";

/** What the API server says of our own node, asked with our own credential. */
export type NodeWord =
  | { readonly kind: "there"; readonly uid: string }
  | { readonly kind: "gone" }
  /** 401. */
  | { readonly kind: "refused" }
  /** 429: it is to be asked again, but not before. */
  | { readonly kind: "busy"; readonly retryAfterMs: number }
  | { readonly kind: "unknown" };

/** What the order is kept with. */
export interface ReconnectParts {
  readonly link: LinkView;
  readonly scopes: Scopes;
  readonly overlays: Overlays;
  readonly clock: Clock;
  readonly log: Log;
  /** In [0, 1). */
  readonly random: () => number;
  /** The principal and name of our own node; undefined when our credential is not a node's. */
  readonly node: () => { readonly principal: string; readonly name: string } | undefined;
  readonly askNode: (name: string, signal: AbortSignal) => Promise<NodeWord>;
  /** Whether this device may be the node; asked before anything of the node's goes up. Default: it may. */
  readonly mayBe?: (signal: AbortSignal) => Promise<boolean>;
  /** The API server has said whether our own node is there; whoever registered it while cut is waited for. */
  readonly nodeMet?: (isThere: boolean, signal: AbortSignal) => Promise<void>;
  /** Says when storage behind a standing link was lost and is back: what was answered in between ends as a cut's does. */
  readonly storage?: { readonly isSilent: boolean; onChange(listener: (isWell: boolean) => void): () => void };
  /** Sends up what agents of the node changed while cut. */
  readonly agentsReturn?: (signal: AbortSignal) => Promise<void>;
  /** Sends up what waited. */
  readonly afterwards: () => Promise<void>;
}

const FIRST: ReadonlySet<string> = new Set(["nodes", "pods", "secrets", "configmaps"]);
const NODE_PATIENCE_MS = 5_000;
const SCOPES_PATIENCE_MS = 3_000;
/** Kubelet's writes wait this long for the agents'; those go on behind them. */
const AGENTS_PATIENCE_MS = 2_000;
const WRITE_PATIENCE_MS = 8_000;
const REFUSED_RETRY_MS = 30_000;
/** An API server with more to do than it can is left alone, for a minute in all; then everybody asks for himself. */
const BUSY_PATIENCE_MS = 60_000;

type Stage = "cut" | "first" | "all";

/** Keeps the order. */
export class Reconnect {
  #stage: Stage = "cut";
  #isRefused = false;
  #waiting = new Set<() => void>();
  #attempt: AbortController | undefined;
  #cancelRetry: (() => void) | undefined;

  constructor(private readonly parts: ReconnectParts) {}

  /** Whether the API server refuses our own credential: for our own principal that is as good as a cut. */
  get isRefused(): boolean {
    return this.#isRefused;
  }

  /** Begins to follow the link; ends when the signal aborts. */
  start(signal: AbortSignal): void {
    const stopListening = this.parts.link.onChange((isOnline) => (isOnline ? void this.#return() : this.#lost()));
    const stopWatching = this.parts.storage?.onChange((isWell) => isWell && this.#storageBack());
    signal.addEventListener("abort", () => {
      stopListening();
      stopWatching?.();
      this.#attempt?.abort(new Error("stopping"));
      this.#cancelRetry?.();
    });
  }

  /** Our own credential was refused just now, on any request. */
  refused(): void {
    if (this.#isRefused || this.#stage === "cut" || this.parts.node() === undefined) return;
    this.#lost();
    void this.#return();
  }

  /** Resolves when a scope may ask the API server again. */
  async turn(identity: ScopeIdentity): Promise<void> {
    await this.#until(() => {
      if (this.#stage === "all") return !this.#isRefused || !this.#isOwn(identity);
      return this.#stage === "first" && this.#isOwn(identity) && FIRST.has(identity.resource) && !this.#isRefused;
    });
  }

  /** Resolves when the node's writes may go up, or have waited long enough. */
  async mayWrite(): Promise<void> {
    const { link, node, storage } = this.parts;
    if (this.#stage === "all" || !link.isOnline() || storage?.isSilent === true || node() === undefined) return;
    await Promise.race([this.#until(() => this.#stage === "all" || !link.isOnline()), this.#after(WRITE_PATIENCE_MS)]);
  }

  #lost(): void {
    this.#attempt?.abort(new Error("link lost"));
    this.#cancelRetry?.();
    this.#stage = "cut";
    // Copies may have given up their edits already; and a finished pod must read as finished in the next cut too.
    this.parts.overlays.settle();
    this.parts.overlays.layAgain();
    this.#tell();
  }

  /** The link stood all the while, and open watches went on: they are at the truth as soon as nothing lies over it. */
  #storageBack(): void {
    if (!this.parts.link.isOnline() || this.#stage === "cut") return;
    for (const scope of this.parts.scopes.all()) scope.endEdits();
    void this.#return();
  }

  async #return(): Promise<void> {
    this.parts.overlays.linkUp();
    this.#attempt?.abort(new Error("begun anew"));
    const attempt = new AbortController();
    this.#attempt = attempt;
    try {
      await this.#inOrder(attempt.signal);
    } catch (error) {
      this.parts.log.error("the return of the link was not completed", { error: String(error) });
      if (!attempt.signal.aborted) this.#enter("all");
    }
  }

  /** The order itself; each step ends early when the link is lost again. */
  async #inOrder(signal: AbortSignal): Promise<void> {
    const { overlays, agentsReturn, afterwards, clock } = this.parts;
    await this.#meetNode(signal);
    if (signal.aborted) return;
    if (!this.#isRefused && (await this.parts.mayBe?.(signal)) === false) return;
    if (signal.aborted) return;
    if (this.#isRefused) {
      // Others may go on; the node's own copies stand as they are, also where a watch of them is still open.
      this.#enter("all");
      overlays.layAgain();
      this.#cancelRetry = clock.after(REFUSED_RETRY_MS, () => void this.#return());
      return;
    }
    this.#enter("first");
    await this.#settled((scope) => this.#isOwn(scope.identity) && FIRST.has(scope.identity.resource));
    if (signal.aborted) return;
    await Promise.race([agentsReturn?.(signal), this.#after(AGENTS_PATIENCE_MS)]);
    if (signal.aborted) return;
    this.#enter("all");
    await this.#settled((scope) => scope.isReturning);
    if (signal.aborted) return;
    overlays.returned();
    await afterwards();
  }

  async #meetNode(signal: AbortSignal): Promise<void> {
    const node = this.parts.node();
    if (node === undefined) {
      this.#isRefused = false;
      return;
    }
    const word = await this.#askPatiently(node.name, signal);
    if (signal.aborted) return;
    if (word.kind === "refused" && !this.#isRefused)
      this.parts.log.error(
        "the API server does not accept the node's certificate (401): what is kept goes on being served; renew the certificate or join the node again",
      );
    this.#isRefused = word.kind === "refused";
    const known = this.parts.scopes.findObject(
      { principal: node.principal, group: "", version: "v1", resource: "nodes", namespace: "", name: node.name },
      [{ format: "json", as: "object", asVersion: "" }],
    );
    // A node that was never known here has yet to register.
    if (known === undefined) return;
    const isAnother = word.kind === "there" && known.item.meta.uid !== word.uid;
    if (word.kind !== "gone" && !isAnother) return;
    this.parts.log.warn("the node was deleted in the cluster meanwhile", { node: node.name, isMadeAnew: isAnother });
    this.parts.overlays.forgetNode();
  }

  /** Of all that is asked at a return this is the first: who is told to wait has only this to repeat. */
  async #askPatiently(name: string, signal: AbortSignal): Promise<NodeWord> {
    const { clock } = this.parts;
    const untilMs = clock.monotonicMs() + BUSY_PATIENCE_MS;
    for (;;) {
      const asking = new AbortController();
      const giveUp = () => asking.abort(new Error("no answer"));
      const cancel = clock.after(NODE_PATIENCE_MS, giveUp);
      signal.addEventListener("abort", giveUp, { once: true });
      const word = await this.#askNode(name, asking.signal).finally(cancel);
      if (word.kind !== "busy" || signal.aborted || clock.monotonicMs() + word.retryAfterMs > untilMs) return word;
      // Never exactly as long as asked: many were asked the same.
      await this.#after(word.retryAfterMs * (1 + this.parts.random()));
      if (signal.aborted) return word;
    }
  }

  async #askNode(name: string, signal: AbortSignal): Promise<NodeWord> {
    const word = await this.parts.askNode(name, signal);
    if (word.kind === "there" || word.kind === "gone") await this.parts.nodeMet?.(word.kind === "there", signal);
    return word;
  }

  /** Resolves when each of these scopes that is followed shows the cloud's truth, or they have had their time. */
  async #settled(concerns: (scope: Scope) => boolean): Promise<void> {
    const { clock, link, scopes } = this.parts;
    const untilMs = clock.monotonicMs() + SCOPES_PATIENCE_MS;
    const isPending = () =>
      [...scopes.all()].some((scope) => concerns(scope) && scope.isFollowing && !scope.hasCaughtUp);
    while (isPending() && link.isOnline() && clock.monotonicMs() < untilMs) await this.#after(10);
  }

  #isOwn({ principal }: ScopeIdentity): boolean {
    return principal === this.parts.node()?.principal;
  }

  #enter(stage: Stage): void {
    this.#stage = stage;
    this.#tell();
  }

  #tell(): void {
    for (const check of [...this.#waiting]) check();
  }

  async #until(isTrue: () => boolean): Promise<void> {
    if (isTrue()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const check = () => isTrue() && resolve();
    this.#waiting.add(check);
    await promise;
    this.#waiting.delete(check);
  }

  #after(delayMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.parts.clock.after(delayMs, resolve);
    return promise;
  }
}
