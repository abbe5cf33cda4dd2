/**
 * WATCH: where a stream starts, what it carries, when it ends.
 *
 * An object that begins to match the selectors is ADDED, one that ceases to is
 * DELETED with the resourceVersion of the change. Bookmarks go only to those
 * who allow them: at the interval, and two seconds before the stream's end.
 */

import { Failure, statusObject, tooLarge } from "./failure.ts";
import type { Exchange } from "./exchange.ts";
import { gzipMember } from "./gzip-member.ts";
import { rendererFor, validateWatchOptions } from "./read.ts";
import type { Renderer } from "./render.ts";
import { isTrue } from "./request.ts";
import { storageName, type Resource } from "./resources.ts";
import { child, type JsonObject } from "./schema.ts";
import { selector, type Predicate } from "./selectors.ts";
import type { Change } from "./store.ts";
import type { World } from "./world.ts";

/** The real server's random time to live, when the client names none. */
const DEFAULT_TIMEOUT_MS = { least: 30 * 60_000, spread: 30 * 60_000 };
const INITIAL_EVENTS_END = { "k8s.io/initial-events-end": "true" };

/** Answers a WATCH; returns when the stream has started. */
export function serveWatch(world: World, exchange: Exchange, resource: Resource): void {
  const { query } = exchange;
  validateWatchOptions(query, world.behaviour.streamingLists);
  const isSelected = selector(resource, query.get("labelSelector") ?? "", query.get("fieldSelector") ?? "");
  const stream = new WatchStream(world, exchange, resource, isSelected, rendererFor(exchange, resource));
  stream.start();
}

/** One live watch. */
export class WatchStream {
  readonly #world: World;
  readonly #prefix: string;
  readonly #allowsBookmarks: boolean;
  readonly #isZipped: boolean;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #unsubscribe = () => {};
  /** Events up to here are behind this watcher, or ahead of its start. */
  #reached = 0;
  #isEnded = false;

  constructor(
    world: World,
    readonly exchange: Exchange,
    readonly resource: Resource,
    readonly isSelected: Predicate,
    readonly render: Renderer,
  ) {
    const { info, query } = exchange;
    this.#world = world;
    this.#prefix = info.namespace === "" || !resource.isNamespaced ? "" : `${info.namespace}/`;
    this.#allowsBookmarks = isTrue(query.get("allowWatchBookmarks"));
    this.#isZipped =
      world.behaviour.compressWatchLists && query.get("sendInitialEvents") === "true" && exchange.acceptsGzip();
  }

  start(): void {
    const { query } = this.exchange;
    const { store, behaviour } = this.#world;
    const asked = this.#startRevision(query.get("resourceVersion") ?? "");
    const sendsInitial = query.has("sendInitialEvents") ? isTrue(query.get("sendInitialEvents")) : asked === 0;
    const isStreamingList = sendsInitial && query.has("sendInitialEvents");
    const missed = sendsInitial || asked === 0 ? [] : store.changesAfter(storageName(this.resource), asked);
    if (!missed && behaviour.expiredAs === "status") throw new Failure(expiredStatus(asked, store.compactedRevision));
    this.#open();
    if (!missed) return this.fail(expiredStatus(asked, store.compactedRevision));
    if (isStreamingList && asked > store.revision) return this.fail(tooLarge(asked, store.revision).status);
    const frames = sendsInitial
      ? this.#initialFrames(isStreamingList)
      : missed.flatMap((change) => this.#framesOf(change));
    this.#reached = Math.max(asked, sendsInitial ? store.revision : 0);
    this.#flush(frames);
    this.#unsubscribe = store.watch((change) => this.#flush(this.#framesOf(change)));
    this.#schedule();
  }

  /** Ends the stream cleanly. */
  end(): void {
    this.#close();
    this.exchange.end();
  }

  /** Ends the stream with an ERROR event. */
  fail(status: JsonObject): void {
    this.#flush([this.render.errorEvent(status)]);
    this.end();
  }

  /** Writes bytes that are no frame and breaks the connection if told so. */
  spoil(bytes: Uint8Array, isCut: boolean): void {
    this.#flush([bytes]);
    if (!isCut) return;
    this.#close();
    // let the bytes out before the connection breaks
    setTimeout(() => this.exchange.destroy(), 5);
  }

  /** Sends a bookmark now, wanted or not. */
  bookmark(): void {
    this.#flush([this.render.bookmark(String(Math.max(this.#reached, this.#world.store.revision)))]);
  }

  #startRevision(text: string): number {
    if (text === "" || /^\d+$/.test(text)) return Number(text);
    throw new Failure(
      statusObject(
        500,
        "",
        `resourceVersion: Invalid value: "${text}": strconv.ParseUint: parsing "${text}": invalid syntax`,
      ),
    );
  }

  #open(): void {
    const encoding: Record<string, string> = this.#isZipped
      ? { "content-encoding": "gzip", vary: "Accept-Encoding" }
      : {};
    this.exchange.head(200, { "content-type": this.render.watchContentType, ...encoding });
    this.#world.watches.add(this);
    this.exchange.response.on("close", () => this.#close());
  }

  #initialFrames(withEnd: boolean): Uint8Array[] {
    const { store } = this.#world;
    const objects = store
      .list(storageName(this.resource))
      .filter(([key, object]) => key.startsWith(this.#prefix) && this.isSelected(object));
    const frames: Uint8Array[] = objects.map(([, object]) => this.render.event("ADDED", object));
    if (withEnd && this.#allowsBookmarks) frames.push(this.render.bookmark(String(store.revision), INITIAL_EVENTS_END));
    return frames;
  }

  #framesOf(change: Change): Uint8Array[] {
    if (
      change.revision <= this.#reached ||
      change.storageName !== storageName(this.resource) ||
      !change.key.startsWith(this.#prefix)
    )
      return [];
    const was = change.previous !== undefined && this.isSelected(change.previous);
    const is = !change.isDeletion && this.isSelected(change.object);
    if (!was && !is) return [];
    if (!is)
      return [this.render.event("DELETED", change.isDeletion ? change.object : at(change.previous!, change.object))];
    return [this.render.event(was ? "MODIFIED" : "ADDED", change.object)];
  }

  #schedule(): void {
    const { query } = this.exchange;
    const seconds = Number(query.get("timeoutSeconds") ?? 0);
    const timeoutMs =
      seconds > 0 ? seconds * 1000 : DEFAULT_TIMEOUT_MS.least + Math.random() * DEFAULT_TIMEOUT_MS.spread;
    this.#after(timeoutMs, () => this.end());
    if (!this.#allowsBookmarks) return;
    if (timeoutMs > 2000) this.#after(timeoutMs - 2000, () => this.bookmark());
    const again = () => {
      this.bookmark();
      this.#after(this.#world.behaviour.bookmarkIntervalMs, again);
    };
    this.#after(this.#world.behaviour.bookmarkIntervalMs, again);
  }

  #after(delayMs: number, task: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      task();
    }, delayMs);
    timer.unref();
    this.#timers.add(timer);
  }

  /** One flush is one gzip member, as since 1.37. */
  #flush(frames: readonly Uint8Array[]): void {
    if (frames.length === 0 || this.#isEnded) return;
    const bytes = Buffer.concat(frames);
    this.exchange.write(this.#isZipped ? gzipMember(bytes) : bytes);
  }

  #close(): void {
    this.#isEnded = true;
    this.#unsubscribe();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#world.watches.delete(this);
  }
}

/** The last matching state, with the resourceVersion of the change that took it out of the selection. */
function at(previous: JsonObject, now: JsonObject): JsonObject {
  const metadata = { ...child(previous, "metadata"), resourceVersion: child(now, "metadata")["resourceVersion"]! };
  return { ...previous, metadata };
}

const expiredStatus = (asked: number, oldest: number) =>
  statusObject(410, "Expired", `too old resource version: ${asked} (${oldest})`);
