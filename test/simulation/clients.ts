/**
 * Clients that behave like client-go's reflectors.
 *
 * Each lists and watches one collection, or streams it (watch-list), resumes
 * at the last resourceVersion it saw, waits longer after each failure, and
 * falls back to a list where a reflector does: after 410, after a stream that
 * was refused, after a watch that ended within a second with nothing in it.
 *
 * Source: client-go 1.35 tools/cache/reflector.go.
 */

import type { WatchSink } from "../../src/cache/frames.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { keyOf } from "./api-server.ts";
import { nameOf, type Belief, type Checks, type WatchCheck } from "./checks.ts";
import type { Random, VirtualClock } from "./clock.ts";
import { LocalError, nextOrder, readObject, type ProcessFace } from "./node-process.ts";

/** What a client is given. */
export interface ClientParts {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly checks: Checks;
  /** The process that runs now; undefined while none does. */
  readonly process: () => ProcessFace | undefined;
  readonly trace: (text: () => string) => void;
  readonly count: (what: string) => void;
}

/** How a client asks. */
export interface ReflectorOptions {
  readonly name: string;
  readonly identity: ScopeIdentity;
  /** Streams its lists (watch-list), the default since 1.35. */
  readonly isStreaming: boolean;
  /** Asks for the most recent when it lists, as `kubectl get --watch` does; reflectors take any first, and then one not older. */
  readonly isExact: boolean;
}

type StreamObject = Parameters<typeof readObject>[0] & {
  readonly code: number;
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
};

interface StreamEnd {
  readonly code: number | undefined;
  readonly events: number;
  readonly lastedMs: number;
}

/** One watch as it arrives at a client. */
class ClientStream implements WatchSink {
  isStuck = false;
  isOver = false;
  check: WatchCheck | undefined;
  detach: () => void = () => {};
  #buffered: Uint8Array[] = [];
  #rest = "";
  #isEndBuffered = false;
  /** Writes that still fit into the client's window, though it is full. */
  #window = 0;
  #resume: () => void = () => {};

  constructor(
    private readonly onLine: (type: string, object: StreamObject) => void,
    private readonly onEnd: () => void,
  ) {}

  write(bytes: Uint8Array): boolean {
    if (this.isOver) return true;
    if (this.isStuck && this.#window-- <= 0) this.#buffered.push(bytes);
    else this.#deliver(bytes);
    return !this.isStuck;
  }

  onDrain(resume: () => void): void {
    this.#resume = resume;
  }

  end(): void {
    if (this.isOver) return;
    if (this.isStuck) this.#isEndBuffered = true;
    else this.#took();
  }

  /** The client reads this many more writes, and then no more for now. */
  stick(window: number): void {
    this.isStuck = true;
    this.#window = window;
    if (this.check !== undefined) this.check.wasStuck = true;
  }

  /** It reads again. */
  drain(): void {
    if (!this.isStuck) return;
    this.isStuck = false;
    for (const bytes of this.#buffered.splice(0)) this.#deliver(bytes);
    if (this.#isEndBuffered) this.#took();
    else this.#resume();
  }

  /** The client hangs up. */
  hangUp(): void {
    if (this.isOver) return;
    this.detach();
    this.reset();
  }

  /** The process is gone: what was buffered is lost. */
  reset(): void {
    if (this.isOver) return;
    this.check?.gone();
    this.#over();
  }

  /** The client has taken the end of the stream, and the server knows. */
  #took(): void {
    this.#over();
    this.detach();
  }

  #over(): void {
    this.isOver = true;
    this.onEnd();
  }

  #deliver(bytes: Uint8Array): void {
    // What the API server sends through Holdfast comes in pieces as the network makes them.
    const lines = (this.#rest + Buffer.from(bytes).toString("utf8")).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      if (line === "" || this.isOver) continue;
      const { type, object } = JSON.parse(line);
      this.onLine(type, object);
    }
  }
}

/** One reflector. */
export class Reflector {
  readonly belief: Belief = new Map();
  readonly identity: ScopeIdentity;
  position = "";
  stream: ClientStream | undefined;
  #isUnavailable = false;
  #isRestarting = false;

  constructor(
    private readonly parts: ClientParts,
    private readonly options: ReflectorOptions,
  ) {
    this.identity = options.identity;
  }

  get name(): string {
    return this.options.name;
  }

  start(): void {
    void this.#run();
  }

  /** The client's process dies and comes back with nothing in its memory. */
  restart(): void {
    this.#isRestarting = true;
    this.stream?.hangUp();
  }

  /** Holdfast's process is gone. */
  reset(): void {
    const { stream, parts, identity, belief, position } = this;
    if (stream === undefined) return;
    // A part of a relist's difference: where it stands is no moment that ever was.
    if (stream.isStuck && !parts.checks.isTruth(identity, belief, Number(position))) parts.count("torn difference");
    stream.reset();
  }

  async #run(): Promise<void> {
    const { clock, random } = this.parts;
    let failures = 0;
    for (;;) {
      const startedMs = clock.monotonicMs();
      if (this.#isRestarting) {
        this.#isRestarting = this.#isUnavailable = false;
        this.position = "";
        this.belief.clear();
      }
      try {
        await this.#listAndWatch();
      } catch (error) {
        if (!(error instanceof LocalError)) throw error;
        this.#say(() => `failed: ${error.code} ${error.message.slice(0, 90)}`);
      }
      failures = clock.monotonicMs() - startedMs > 120_000 ? 0 : failures + 1;
      await clock.sleep(Math.min(30_000, 800 * 2 ** (failures - 1)) * (1 + random.next()));
    }
  }

  async #listAndWatch(): Promise<void> {
    let open = this.options.isStreaming ? await this.#streamList() : undefined;
    if (open === undefined && !this.options.isStreaming) await this.#list();
    for (;;) {
      let end: StreamEnd;
      try {
        end = await (open ?? (await this.#watch(false)).ended);
      } catch (error) {
        if (!(error instanceof LocalError) || (error.code !== 0 && error.code !== 429)) throw error;
        this.#say(() => `again: ${error.code} ${error.message.slice(0, 90)}`);
        await this.parts.clock.sleep(800 + this.parts.random.next() * 800);
        continue;
      } finally {
        open = undefined;
      }
      if (this.#isRestarting) throw new LocalError(0, "restarted");
      if (end.code !== undefined) throw new LocalError(end.code, "ERROR event");
      if (end.lastedMs < 1_000 && end.events === 0) throw new LocalError(0, "very short watch");
    }
  }

  async #list(): Promise<void> {
    const asked = this.#isUnavailable || this.options.isExact ? "" : this.position === "" ? "0" : this.position;
    try {
      await this.#listAt(asked);
    } catch (error) {
      if (!(error instanceof LocalError) || (error.code !== 410 && error.code !== 504)) throw error;
      this.#isUnavailable = true;
      await this.#listAt("");
    }
  }

  async #listAt(asked: string): Promise<void> {
    const process = this.parts.process();
    if (process === undefined) throw new LocalError(0, "connection refused");
    this.#say(() => `list at "${asked}"`);
    const list = await process.list(this.identity, asked);
    this.parts.checks.listed(this.identity, list, asked);
    this.parts.count("local list");
    this.#say(() => `listed at ${list.revision}: ${list.items.length} items`);
    this.belief.clear();
    for (const item of list.items) this.belief.set(keyOf(item), item);
    this.position = String(list.revision);
    this.#isUnavailable = false;
  }

  /** @returns the end of the watch that goes on where the initial events end. */
  async #streamList(): Promise<Promise<StreamEnd>> {
    try {
      const { synced, ended } = await this.#watch(true);
      const isSynced = await Promise.race([synced.then(() => true), ended.then(() => false)]);
      if (isSynced) return ended;
      const { code = 0 } = await ended;
      throw new LocalError(code, "stream ended before its initial events");
    } catch (error) {
      if (error instanceof LocalError && (error.code === 410 || error.code === 504)) this.#isUnavailable = true;
      throw error;
    }
  }

  /** Opens a watch, with initial events or at the position. */
  async #watch(isInitial: boolean): Promise<{ readonly synced: Promise<void>; readonly ended: Promise<StreamEnd> }> {
    const { clock, random, checks, count } = this.parts;
    const process = this.parts.process();
    if (process === undefined) throw new LocalError(0, "connection refused");
    const synced = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<StreamEnd>();
    const resourceVersion = isInitial && this.#isUnavailable ? "" : this.position;
    const timeoutMs = random.between(300, 600) * 1_000;
    let openedMs = 0;
    let events = 0;
    let code: number | undefined;
    let initial: Belief | undefined = isInitial ? new Map() : undefined;
    const asked = nextOrder();

    const onLine = (type: string, object: StreamObject) => {
      this.#say(() => `<- ${type} ${type === "ERROR" ? object.code : JSON.stringify(object.metadata)}`);
      if (type === "ERROR") {
        code = object.code;
        return;
      }
      events++;
      if (type === "BOOKMARK") {
        const { metadata } = object;
        const revision = Number(metadata.resourceVersion);
        if (initial === undefined) check.bookmark(revision);
        else if (metadata.annotations?.["k8s.io/initial-events-end"] === "true") {
          check.initial({ revision, items: [...initial.values()] }, resourceVersion);
          this.belief.clear();
          for (const [key, item] of initial) this.belief.set(key, item);
          initial = undefined;
          this.#isUnavailable = false;
          synced.resolve();
        }
        this.position = metadata.resourceVersion;
        return;
      }
      const item = readObject(object);
      check.event(type as "ADDED", item);
      if (initial !== undefined) {
        initial.set(keyOf(item), { ...item, asked });
        return;
      }
      count("event");
      if (type === "DELETED") this.belief.delete(keyOf(item));
      else this.belief.set(keyOf(item), item);
      this.position = String(item.revision);
    };
    const stream = new ClientStream(onLine, () => {
      if (this.stream === stream) this.stream = undefined;
      this.#say(() => `watch ended${code === undefined ? "" : ` with ${code}`}`);
      ended.resolve({ code, events, lastedMs: clock.monotonicMs() - openedMs });
    });
    let check!: WatchCheck;
    const opened = (isForwarded: boolean) => {
      openedMs = clock.monotonicMs();
      check = checks.watch(this.identity, {
        startAt: isInitial ? undefined : Number(resourceVersion),
        openedMs,
        endsAtMs: openedMs + timeoutMs,
        isForwarded,
        isAhead: !isInitial && Number(resourceVersion) > process.heldOf(this.identity),
        belief: this.belief,
        isStopping: () => process.isStopping,
      });
      stream.check = check;
      this.stream = stream;
      count(isInitial ? "stream opened" : "watch resumed");
      this.#say(() => `watch open ${isInitial ? "with initial events" : `at ${resourceVersion}`}`);
    };
    const sink: WatchSink = {
      write: (bytes) => stream.write(bytes),
      onDrain: (resume) => stream.onDrain(resume),
      end: () => {
        if (!stream.isOver) check.ended(code);
        stream.end();
      },
    };
    const detach = await process.watch(
      this.identity,
      { resourceVersion, sendInitialEvents: isInitial, allowBookmarks: true, timeoutMs },
      sink,
      opened,
    );
    stream.detach = detach;
    if (stream.isOver) detach();
    return { synced: synced.promise, ended: ended.promise };
  }

  #say(text: () => string): void {
    this.parts.trace(() => `${this.name} (${nameOf(this.identity)}) ${text()}`);
  }
}
