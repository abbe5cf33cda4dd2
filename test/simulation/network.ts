/**
 * The uplink: delay, cuts, silence, and the API server's bad days.
 *
 *   up      everything arrives, in order, after a while
 *   cut     what is open is reset, what is new is refused
 *   hole    nothing arrives and nothing is refused; afterwards some
 *           connections go on where they were, and some are reset
 *
 * One connection carries one request. What was on its way when the link went
 * is held back or lost with it, never reordered.
 */

import type { Ending } from "../../src/base/cancel.ts";
import type { WireAnswer } from "../../src/uplink/read-answer.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { eventOf, type ApiServer } from "./api-server.ts";
import type { Random, VirtualClock } from "./clock.ts";

/** How the uplink stands. */
export type LinkMode = "up" | "cut" | "hole";

/** What the API server does wrong, for the next few requests. */
export interface Mood {
  /** Requests left that are answered with this status. */
  errors: { status: number; left: number };
  /** Lists left that end before their last byte, with a reset or with a clean end. */
  truncated: number;
  /** Extra delay before an answer's head. */
  slowMs: number;
}

interface ServerWatch {
  readonly identity: ScopeIdentity;
  readonly from: number;
  readonly connection: Connection;
  readonly body: Body;
}

/**
 * Heads of lists and watches as they reach Holdfast, and refusals once more when their last byte does.
 *
 * @param decidedAt grows with the API server's decisions.
 */
export type OnHead = (identity: ScopeIdentity, status: number, decidedAt: number, isWhole: boolean) => void;

interface Reply {
  readonly status: number;
  readonly text?: string;
  readonly send?: () => void;
}

/** The bytes of one answer, as they come. */
class Body implements AsyncIterableIterator<Uint8Array> {
  #chunks: Uint8Array[] = [];
  #end: { readonly error?: Error } | undefined;
  #waiting: PromiseWithResolvers<IteratorResult<Uint8Array>> | undefined;

  [Symbol.asyncIterator](): this {
    return this;
  }

  push(text: string): void {
    this.#chunks.push(Buffer.from(text));
    this.#serve();
  }

  end(error?: Error): void {
    this.#end ??= error === undefined ? {} : { error };
    this.#serve();
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    const waiting = Promise.withResolvers<IteratorResult<Uint8Array>>();
    this.#waiting = waiting;
    this.#serve();
    return waiting.promise;
  }

  async return(): Promise<IteratorResult<Uint8Array>> {
    this.#chunks = [];
    this.#end ??= {};
    return { done: true, value: undefined };
  }

  #serve(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) waiting.resolve({ done: false, value: chunk });
    else if (this.#end?.error !== undefined) waiting.reject(this.#end.error);
    else if (this.#end !== undefined) waiting.resolve({ done: true, value: undefined });
    else return;
    this.#waiting = undefined;
  }
}

/** One request's way up and down, in order. */
class Connection {
  isDead = false;
  isStalled = false;
  readonly #queue: { readonly delayMs: number; readonly task: () => void }[] = [];
  #isMoving = false;

  constructor(
    private readonly network: Network,
    private readonly onBroken: (error: Error) => void,
  ) {}

  send(delayMs: number, task: () => void): void {
    if (this.isDead) return;
    this.#queue.push({ delayMs, task });
    this.move();
  }

  /** Goes on, if the link lets it. */
  move(): void {
    const next = this.#queue[0];
    if (next === undefined || this.#isMoving || this.isDead) return;
    this.#isMoving = true;
    this.network.clock.after(next.delayMs, () => {
      this.#isMoving = false;
      if (this.isDead || this.isStalled || this.network.mode === "hole") return;
      this.#queue.shift();
      next.task();
      this.move();
    });
  }

  break(error: Error): void {
    if (this.isDead) return;
    this.isDead = true;
    this.network.forget(this);
    this.onBroken(error);
  }
}

/** The link and the API server at its far end. */
export class Network {
  mode: LinkMode = "up";
  readonly mood: Mood = { errors: { status: 500, left: 0 }, truncated: 0, slowMs: 0 };
  /** How many items the API server puts on a page. */
  pageItems = 500;
  latencyMs = 5;
  readonly #connections = new Set<Connection>();
  readonly #watches = new Set<ServerWatch>();
  #decisions = 0;

  constructor(
    readonly clock: VirtualClock,
    private readonly random: Random,
    private readonly server: ApiServer,
    private readonly unreachable: (message: string) => Error,
    private readonly onHead: OnHead,
  ) {
    server.onChange((change) => {
      for (const watch of this.#watches) {
        const event = change.revision > watch.from ? eventOf(change, watch.identity) : undefined;
        if (event !== undefined) this.#push(watch, server.eventText(watch.identity, event));
      }
    });
  }

  /** How many upstream watches are open. */
  get watchCount(): number {
    return this.#watches.size;
  }

  cut(): void {
    this.mode = "cut";
    for (const connection of [...this.#connections]) connection.break(this.unreachable("connection reset"));
  }

  hole(): void {
    if (this.mode === "up") this.mode = "hole";
  }

  heal(): void {
    this.mode = "up";
    for (const connection of [...this.#connections]) {
      connection.isStalled = false;
      if (this.random.chance(0.5)) connection.move();
      else connection.break(this.unreachable("connection reset"));
    }
  }

  /** Some connections stop in mid-stream, though the link is well; in the end they are reset. */
  stall(): void {
    for (const connection of this.#connections) {
      if (this.random.chance(0.5)) continue;
      connection.isStalled = true;
      this.clock.after(STALLED_MS, () => connection.isStalled && connection.break(this.unreachable("timed out")));
    }
  }

  /** Open watches lag behind, until `catchUp`; whatever else is asked is answered. */
  lag(): void {
    for (const { connection } of this.#watches) connection.isStalled = true;
  }

  /** What lagged behind arrives. */
  catchUp(): void {
    for (const connection of this.#connections) {
      connection.isStalled = false;
      connection.move();
    }
  }

  /** The API server ends its watches, cleanly or not. */
  endWatches(): void {
    for (const watch of [...this.#watches]) {
      if (this.random.chance(0.5)) this.#endCleanly(watch);
      else watch.connection.break(this.unreachable("connection reset"));
    }
  }

  /** Every open watch learns how far history is. */
  bookmarkAll(): void {
    for (const watch of this.#watches) this.#bookmark(watch);
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
  }

  /** The process at this end is gone. */
  breakAll(): void {
    for (const connection of [...this.#connections]) connection.break(this.unreachable("process gone"));
  }

  /** A probe of the link, over a connection of its own. */
  probe(signal: Ending): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const connection = this.#connect(signal, reject);
    connection?.send(this.latencyMs * 2, resolve);
    return promise;
  }

  list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    notOlderThan: string,
    signal: Ending,
  ): Promise<WireAnswer> {
    return this.#ask(identity, signal, (connection, body) => {
      if (Number(notOlderThan) > this.server.revision) return { status: 504, text: TOO_LARGE };
      const size = page.limit === 0 ? 0 : Math.min(page.limit, this.pageItems);
      const list = this.server.list(identity, size, page.continueToken);
      if (list === undefined) return { status: 410, text: EXPIRED };
      if (this.mood.truncated > 0) {
        this.mood.truncated--;
        const isClean = this.random.chance(0.5);
        const part = list.text.slice(0, this.random.between(0, list.text.length - 2));
        return {
          status: 200,
          send: () => {
            connection.send(this.latencyMs, () => body.push(part));
            connection.send(0, () => (isClean ? body.end() : connection.break(this.unreachable("truncated"))));
          },
        };
      }
      return { status: 200, text: list.text };
    });
  }

  get(identity: ScopeIdentity, namespace: string, name: string, signal: Ending): Promise<WireAnswer> {
    const answer = () => {
      const text = this.server.get(identity, namespace, name);
      return text === undefined ? { status: 404, text: NOT_FOUND } : { status: 200, text };
    };
    return this.#ask(identity, signal, answer, () => {});
  }

  /** A write; `apply` runs at the API server. */
  write(
    identity: ScopeIdentity,
    apply: () => { readonly status: number; readonly text: string },
    signal: Ending,
  ): Promise<WireAnswer> {
    return this.#ask(identity, signal, apply, () => {});
  }

  watch(identity: ScopeIdentity, resourceVersion: string, timeoutSeconds: number, signal: Ending): Promise<WireAnswer> {
    return this.#ask(identity, signal, (connection, body) => {
      const from = Number(resourceVersion);
      if (from < this.server.windowFloor) {
        if (this.random.chance(0.5)) return { status: 410, text: EXPIRED };
        return { status: 200, text: `{"type":"ERROR","object":${EXPIRED}}\n` };
      }
      const watch: ServerWatch = { identity, from, connection, body };
      return {
        status: 200,
        send: () => {
          for (const event of this.server.eventsAfter(identity, from))
            this.#push(watch, this.server.eventText(identity, event));
          this.#watches.add(watch);
          this.#keepWatch(watch, timeoutSeconds);
        },
      };
    });
  }

  #keepWatch(watch: ServerWatch, timeoutSeconds: number): void {
    const endsMs = this.clock.monotonicMs() + timeoutSeconds * 1_000;
    const tick = () => {
      if (watch.connection.isDead || !this.#watches.has(watch)) return;
      if (this.clock.monotonicMs() >= endsMs) return this.#endCleanly(watch);
      this.#bookmark(watch);
      this.clock.after(60_000, tick);
    };
    this.clock.after(60_000, tick);
  }

  #bookmark(watch: ServerWatch): void {
    const { revision } = this.server;
    if (revision >= watch.from) this.#push(watch, this.server.bookmarkText(watch.identity, revision));
  }

  #endCleanly(watch: ServerWatch): void {
    this.#watches.delete(watch);
    watch.connection.send(this.latencyMs, () => {
      this.#connections.delete(watch.connection);
      watch.body.end();
    });
  }

  /** Sometimes a frame comes in two pieces. */
  #push({ connection, body }: ServerWatch, text: string): void {
    const at = this.random.chance(0.1) ? this.random.between(1, text.length - 1) : text.length;
    connection.send(this.latencyMs, () => body.push(text.slice(0, at)));
    if (at < text.length) connection.send(this.latencyMs, () => body.push(text.slice(at)));
  }

  #connect(signal: Ending, onBroken: (error: Error) => void): Connection | undefined {
    if (signal.aborted) {
      onBroken(this.unreachable("aborted"));
      return undefined;
    }
    const connection = new Connection(this, (error) => {
      for (const watch of this.#watches) if (watch.connection === connection) this.#watches.delete(watch);
      onBroken(error);
    });
    this.#connections.add(connection);
    signal.addEventListener("abort", () => connection.break(this.unreachable("aborted")), { once: true });
    if (this.mode === "cut") this.clock.after(2, () => connection.break(this.unreachable("connection refused")));
    return connection;
  }

  #ask(
    identity: ScopeIdentity,
    signal: Ending,
    answer: (connection: Connection, body: Body) => Reply,
    onHead: OnHead = this.onHead,
  ): Promise<WireAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<WireAnswer>();
    const body = new Body();
    const connection = this.#connect(signal, (error) => {
      reject(error);
      body.end(error);
    });
    connection?.send(this.latencyMs, () => {
      const reply: Reply = this.#refusal(identity) ?? answer(connection, body);
      const decidedAt = this.#decisions++;
      connection.send(this.latencyMs + this.mood.slowMs, () => {
        onHead(identity, reply.status, decidedAt, false);
        resolve(answerOf(reply.status, body));
      });
      if (reply.send !== undefined) return reply.send();
      const text = reply.text ?? "";
      const at = this.random.between(0, text.length);
      connection.send(this.latencyMs, () => body.push(text.slice(0, at)));
      connection.send(this.mood.slowMs, () => body.push(text.slice(at)));
      connection.send(0, () => {
        this.#connections.delete(connection);
        if (reply.status >= 400) onHead(identity, reply.status, decidedAt, true);
        body.end();
      });
    });
    return promise;
  }

  #refusal({ principal, resource }: ScopeIdentity): Reply | undefined {
    const denied = this.server.refusalOf(principal, resource);
    if (denied !== undefined) return { status: denied, text: `{"kind":"Status","apiVersion":"v1","code":${denied}}` };
    const { errors } = this.mood;
    if (errors.left === 0) return undefined;
    errors.left--;
    return { status: errors.status, text: `{"kind":"Status","apiVersion":"v1","code":${errors.status}}` };
  }
}

/** Keep-alive has given a silent connection up. */
const STALLED_MS = 90_000;
const NOT_FOUND = '{"kind":"Status","apiVersion":"v1","reason":"NotFound","code":404}';
const EXPIRED =
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}';

const TOO_LARGE =
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Too large resource version","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge"}]},"code":504}';

function answerOf(status: number, body: Body): WireAnswer {
  return {
    status,
    header: (name) => (name === "content-type" ? "application/json" : undefined),
    chunks: body,
  };
}
