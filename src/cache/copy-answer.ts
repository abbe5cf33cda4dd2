/**
 * A copy that vouches for what a caller asks, found once and handed along.
 *
 * What is asked for may be the whole of the copy or a part of it: lists are
 * cut out of its snapshot, watches out of its frames. Whether an object was
 * selected before an event the frame itself tells (`before`), as in the API
 * server's own watch cache, so a watch of a part holds nothing in memory:
 *
 *   in the copy        was selected   is selected   sent
 *   added              -              yes           ADDED
 *   modified           no             yes           ADDED
 *   modified           yes            yes           MODIFIED
 *   modified           yes            no            DELETED, its last selected state at the event's resourceVersion
 *   deleted            yes            -             DELETED
 *   anything           no             no            nothing
 *
 * Where a frame does not tell, the watch ends with 410: nothing is guessed.
 */

import type { Codec, Item, Shape, StatusFields } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { expired } from "../kube/status-error.ts";
import type { ListedState, ScopeIdentity, ScopeSnapshot } from "../store/contract.ts";
import type { Part } from "./containment.ts";
import { withNewer } from "./known-newer.ts";
import type { OwnWrites } from "./own-writes.ts";
import { withOwnWrites } from "./own-write-view.ts";
import { Encoder, type Frame, type FrameSink, type ObjectFrame, type WatchSink } from "./frames.ts";
import type { WatchRequest } from "./local-watches.ts";
import type { Scope } from "./scope.ts";
import { AheadSink, type OnShown, type Shown } from "./shown-ahead.ts";

/** What a caller knows of a resource from elsewhere. */
export interface CallerKnows {
  /** Its other copies. */
  readonly siblings: () => Iterable<Scope>;
  readonly writes: OwnWrites | undefined;
}

/** How a view is read. */
export interface Reading {
  /** The API server was asked and has not answered, whatever the copy's watch says. Default false. */
  readonly isInstead?: boolean;
  /** As the rows stand: nothing newer belongs to that moment. Default false. */
  readonly isExact?: boolean;
}

/** An answer from a copy. */
export class CopyAnswer {
  readonly #part: Part | undefined;

  /** @param part undefined where all of the copy is asked for, as it is. */
  constructor(
    /** The copy that vouches. */
    readonly scope: Scope,
    /** What is asked for. */
    readonly identity: ScopeIdentity = scope.identity,
    part?: Part,
    /** What else the caller knows of that resource; undefined where it is not a client that asks. */
    private readonly caller?: CallerKnows,
  ) {
    this.#part = part?.selects === undefined && part?.form === undefined ? undefined : part;
  }

  /** Whether it is the copy as it is, and nothing is cut out. */
  get isWhole(): boolean {
    return this.#part === undefined;
  }

  /** What stands above the answer's items; undefined once the copy is gone. */
  get listed(): ListedState | undefined {
    const { listed } = this.scope;
    return listed === undefined || this.#part === undefined ? listed : { ...listed, shape: this.#part.shape };
  }

  /** The format of the answer; only while the copy is listed. */
  codec(listed: ListedState): Codec {
    return this.scope.codec(listed);
  }

  /** A frozen view of what is served; undefined once the copy is gone. */
  snapshot({ isInstead = false, isExact = false }: Reading = {}): ScopeSnapshot | undefined {
    this.expectWatch();
    const whole = this.scope.snapshot();
    if (whole === undefined) return undefined;
    const newest = isExact ? whole : this.#newest(whole, isInstead);
    return this.#part === undefined ? newest : new PartSnapshot(newest, this.#part);
  }

  /** A live copy knows everything itself. @param onShown told of what is shown ahead of it. */
  #newest(view: ScopeSnapshot, isInstead = false, onShown: OnShown = () => {}): ScopeSnapshot {
    const { caller, scope } = this;
    const isLive = scope.state === "live";
    if (caller === undefined || (isLive && !isInstead)) return view;
    const told: OnShown = (key, shown) => {
      scope.watches.showedAhead(key, shown, true);
      onShown(key, shown);
    };
    const newest = isLive ? view : withNewer(view, scope, caller.siblings(), told);
    return caller.writes === undefined ? newest : withOwnWrites(caller.writes, newest, scope, told);
  }

  /**
   * Called at the start, before any copy moves, where somebody had been shown more than the rows: who was shown what
   * nobody remembers, so it counts as shown what the caller's other copies know now.
   */
  noteShown(): void {
    const { caller, scope } = this;
    using rows = caller === undefined ? undefined : scope.rows();
    if (caller === undefined || rows === undefined) return;
    const told: OnShown = (key, shown) => scope.watches.showedAhead(key, shown, false);
    for (const _ of withNewer(rows, scope, caller.siblings(), told).items());
  }

  /** And the same of what its caller wrote. */
  #noteWritten(at: string): void {
    const { caller, scope } = this;
    const { watches } = scope;
    const isUnknown = scope.state !== "live" && watches.shownBefore !== "" && watches.isFromBefore(at);
    using rows = isUnknown ? scope.rows() : undefined;
    if (caller?.writes === undefined || rows === undefined) return;
    const told: OnShown = (key, shown) => scope.watches.showedAhead(key, shown, false);
    for (const _ of withOwnWrites(caller.writes, rows, scope, told).items());
  }

  /** What a client that comes back at this moment was shown ahead: by this copy, or of what it did not show, by another that the client may have come from. */
  #recallShown(at: string, shown: Map<string, Shown>): void {
    for (const [key, one] of this.scope.watches.shownAfter(at)) shown.set(key, one);
    const here = new Set(shown.keys());
    for (const { watches } of this.caller?.siblings() ?? [])
      for (const [key, one] of watches.shownAfter(at))
        if (!here.has(key) && compareResourceVersions(one.at, shown.get(key)?.at ?? "") >= 0) shown.set(key, one);
  }

  /** A list of it was just answered: what is needed to tell a watch from there is kept from now on. */
  expectWatch(): void {
    if (this.#part?.mayChange === true) this.scope.keepBefore();
  }

  /** Whether everything after this moment can be told from here. */
  canTellFrom(at: string): boolean {
    if (!this.scope.watches.tellsFrom(at)) return false;
    if (this.#part?.mayChange !== true) return true;
    this.expectWatch();
    return !this.scope.watches.lacksBefore(at);
  }

  /** Attaches a local watch; see Scope.watch. */
  watch(request: WatchRequest, open: () => WatchSink): Promise<() => void> {
    return this.tap(request, ({ codec, shape }) => new Encoder(codec, shape, open()));
  }

  /** As `watch`, with frames in the place of bytes. */
  async tap(
    request: WatchRequest,
    open: (form: { readonly codec: Codec; readonly shape: Shape }) => FrameSink,
  ): Promise<() => void> {
    const { scope } = this;
    const part = this.#part;
    const { resourceVersion: at } = request;
    const isResume = !request.sendInitialEvents && at !== "" && at !== "0";
    if (isResume) this.#noteWritten(at);
    const shown = new Map<string, Shown>();
    const over = (view: ScopeSnapshot) => this.#newest(view, false, (key, one) => shown.set(key, one));
    const attached = Promise.withResolvers<() => void>();
    const leave = () => void attached.promise.then((detachNow) => detachNow());
    const opened = (form: { readonly codec: Codec; readonly shape: Shape }) => {
      if (this.caller === undefined) return open(form);
      if (isResume) this.#recallShown(at, shown);
      return new AheadSink(open(form), shown, isResume ? leave : undefined);
    };
    if (part !== undefined) this.expectWatch();
    const detach = await (part === undefined
      ? scope.tap(request, ({ codec, listed }) => opened({ codec, shape: listed.shape }), over)
      : scope.tap(
          { ...request, isPart: part.mayChange },
          ({ codec }) => new PartSink(part, codec, opened({ codec, shape: part.shape }), leave),
          over,
        ));
    attached.resolve(detach);
    return detach;
  }
}

/** A part of a frozen view; what it holds is decided as it is read. */
export class PartSnapshot implements ScopeSnapshot {
  readonly listed: ListedState;

  constructor(
    private readonly whole: ScopeSnapshot,
    private readonly part: Pick<Part, "shape" | "selects" | "form">,
  ) {
    this.listed = { ...whole.listed, shape: part.shape };
  }

  get itemCount(): number {
    if (this.part.selects === undefined) return this.whole.itemCount;
    let count = 0;
    for (const _ of this.items()) count++;
    return count;
  }

  *itemSizes(): Iterable<number> {
    for (const { bytes } of this.items()) yield bytes.length;
  }

  *items(): Iterable<Item> {
    const { form, selects } = this.part;
    for (const item of this.whole.items())
      if (selects === undefined || selects(item)) yield form === undefined ? item : form(item);
  }

  [Symbol.dispose](): void {
    this.whole[Symbol.dispose]();
  }
}

/** Cuts a part out of a copy's frames. */
export class PartSink implements FrameSink {
  readonly isPart: boolean;
  #isOver = false;

  constructor(
    private readonly part: Pick<Part, "selects" | "mayChange" | "form">,
    private readonly codec: Codec,
    private readonly sink: FrameSink,
    /** It ended by itself: it is to be detached. */
    private readonly onGivenUp: () => void,
  ) {
    this.isPart = sink.isPart ?? true;
  }

  isAheadOf(at: string): boolean {
    return this.sink.isAheadOf?.(at) === true;
  }

  take(frames: readonly Frame[]): boolean {
    if (this.#isOver) return true;
    const out: Frame[] = [];
    for (const frame of frames) {
      const told = frame.type === "BOOKMARK" ? frame : this.#translate(frame);
      if (told === "unknown") return this.#giveUp(out);
      if (told !== undefined) out.push(told);
    }
    return out.length === 0 || this.sink.take(out);
  }

  onDrain(resume: () => void): void {
    this.sink.onDrain(resume);
  }

  end(lastWord?: StatusFields): void {
    if (!this.#isOver) this.sink.end(lastWord);
    this.#isOver = true;
  }

  #giveUp(before: readonly Frame[]): boolean {
    if (before.length > 0) this.sink.take(before);
    this.end(expired("too old resource version: what was selected then is not known any more").status);
    this.onGivenUp();
    return true;
  }

  #translate(frame: ObjectFrame): ObjectFrame | undefined | "unknown" {
    const { mayChange, selects } = this.part;
    const isSelected = selects === undefined || selects(frame.item);
    if (!mayChange || frame.type === "ADDED" || frame.type === "DELETED")
      return isSelected ? this.#formed(frame.type, frame.item) : undefined;
    if (frame.before === undefined) return "unknown";
    const wasSelected = selects!(frame.before);
    if (isSelected) return this.#formed(wasSelected ? "MODIFIED" : "ADDED", frame.item);
    return wasSelected ? this.#formed("DELETED", this.#at(frame.before, frame.item)) : undefined;
  }

  /** An object as it was, at the moment of what came after it. */
  #at({ meta, bytes }: Item, { meta: { resourceVersion } }: Item): Item {
    return { meta: { ...meta, resourceVersion }, bytes: this.codec.withResourceVersion(bytes, resourceVersion) };
  }

  #formed(type: ObjectFrame["type"], item: Item): ObjectFrame {
    const { form } = this.part;
    return { type, item: form === undefined ? item : form(item) };
  }
}
