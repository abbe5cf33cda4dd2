/**
 * One stream of a session: what it may send, what it has taken, and its end in
 * each direction.
 *
 *   open -> this end said its last -> both did: closed
 *        -> the other end did      ->
 *        -> broken, by either end or with the session
 */

/** What happens on a stream. */
export interface StreamEvents {
  /** Bytes came; a view. Say `consumed` when they have left: only then more are granted. */
  onData(bytes: Uint8Array): void;
  /** The other end sends no more. */
  onEnd(): void;
  /** All that waited has gone; write on. */
  onWritable(): void;
  /** It is broken; nothing more comes or goes. Told once, and not to whoever broke it off. */
  onBroken(): void;
  /** Both ends have said their last and everything has left; the stream is over. */
  onDone(): void;
}

/** What a stream asks of its session. */
export interface StreamParts {
  readonly nowMs: () => number;
  /** @returns what could not be sent now. */
  readonly sendNow: (stream: MuxStream, bytes: Uint8Array) => Uint8Array;
  /** It waits, and has a window: it wants its turn. */
  readonly ready: (stream: MuxStream) => void;
  readonly end: (stream: MuxStream) => void;
  readonly reset: (stream: MuxStream) => void;
  readonly grant: (stream: MuxStream, bytes: number) => void;
  /** So many bytes more are held for it, or less. */
  readonly held: (bytes: number) => void;
  readonly closed: (stream: MuxStream) => void;
  readonly mayGrow: () => boolean;
}

const FIRST_WINDOW = 256 * 1024;
const MAX_WINDOW = 4 * 1024 * 1024;
/** A window used up within this time was too small for its link. */
const GROW_WITHIN_MS = 1_000;
/** A grant is a number of four bytes. */
const MAX_GRANTED = 0xffff_ffff;

const NOBODY: StreamEvents = { onData() {}, onEnd() {}, onWritable() {}, onBroken() {}, onDone() {} };

/** A stream. */
export class MuxStream {
  #sendWindow = FIRST_WINDOW;
  #window = FIRST_WINDOW;
  /** What the other end may still send. */
  #granted = FIRST_WINDOW;
  #usedSinceGrant = 0;
  #grantedAtMs: number;
  /** Taken in and not yet consumed. */
  #unread = 0;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #isEnding = false;
  #isBreaking = false;
  #hasEnded = false;
  #isEndedThere = false;
  #isGone = false;

  constructor(
    readonly id: number,
    private readonly parts: StreamParts,
    private flags: number,
    private events: StreamEvents = NOBODY,
  ) {
    this.#grantedAtMs = parts.nowMs();
  }

  /** What it may send. */
  get sendWindow(): number {
    return this.#sendWindow;
  }

  /** Bytes held for it here. */
  get heldBytes(): number {
    return this.#unread + this.#queuedBytes;
  }

  // ---- its user ----

  /** @returns false when they wait: write on at `onWritable`. They are taken all the same. */
  write(bytes: Uint8Array): boolean {
    if (this.#isGone || this.#isEnding) return false;
    const rest = this.#queuedBytes > 0 ? bytes : this.parts.sendNow(this, bytes);
    if (rest.length === 0) return true;
    this.#queue.push(Uint8Array.prototype.slice.call(rest));
    this.#queuedBytes += rest.length;
    if (this.#sendWindow > 0) this.parts.ready(this);
    this.parts.held(rest.length);
    return false;
  }

  /** Says its last, behind what waits. */
  end(): void {
    if (this.#isEnding || this.#isGone) return;
    this.#isEnding = true;
    if (this.#queuedBytes === 0) this.#sayEnd();
  }

  /** Breaks it off, both ways, at once. */
  reset(): void {
    if (this.#isGone) return;
    this.parts.reset(this);
  }

  /** Breaks it off once what waits has gone: as a TCP connection that was reset still gives what it had received. */
  resetAfterwards(): void {
    if (this.#queuedBytes === 0) return this.reset();
    this.#isEnding = this.#isBreaking = true;
  }

  /** So many of the bytes that came have left; as much is granted anew, in large pieces. */
  consumed(bytes: number): void {
    if (this.#isGone) return;
    this.#unread -= bytes;
    this.parts.held(-bytes);
    this.#closeWhenDone();
    this.#usedSinceGrant += bytes;
    if (this.#isEndedThere || this.#usedSinceGrant < this.#window / 2) return;
    const nowMs = this.parts.nowMs();
    let more = this.#usedSinceGrant;
    if (nowMs - this.#grantedAtMs < GROW_WITHIN_MS && this.#window < MAX_WINDOW && this.parts.mayGrow()) {
      more += this.#window;
      this.#window *= 2;
    }
    this.#grantedAtMs = nowMs;
    this.#usedSinceGrant = 0;
    this.#granted += more;
    this.parts.grant(this, more);
  }

  // ---- its session ----

  /** Who is told of what happens from now on. */
  heard(events: StreamEvents): void {
    this.events = events;
  }

  /** What its next frame has to say beside: SYN of the first, ACK of the answer. */
  takeFlags(): number {
    const { flags } = this;
    this.flags = 0;
    return flags;
  }

  /** Whether the other end may send so much; it has. */
  admits(bytes: number): boolean {
    this.#granted -= bytes;
    return this.#granted >= 0 && !(this.#isEndedThere && bytes > 0);
  }

  /** Bytes came. */
  received(bytes: Uint8Array): void {
    if (this.#isGone) return;
    this.#unread += bytes.length;
    this.parts.held(bytes.length);
    if (!this.#isGone) this.events.onData(bytes);
  }

  /** The other end said its last. */
  ended(): void {
    if (this.#isEndedThere || this.#isGone) return;
    this.#isEndedThere = true;
    this.events.onEnd();
    this.#closeWhenDone();
  }

  /** It may send so much more. @returns false when that cannot be. */
  granted(bytes: number): boolean {
    this.#sendWindow += bytes;
    if (this.#queuedBytes > 0 && bytes > 0) this.parts.ready(this);
    return this.#sendWindow <= MAX_GRANTED;
  }

  /** So much was sent. */
  sent(bytes: number): void {
    this.#sendWindow -= bytes;
  }

  /** Sends one piece of what waits. @returns whether it wants another turn. */
  sendQueued(most: number): boolean {
    const first = this.#queue[0];
    if (first === undefined || this.#isGone) return false;
    const piece = first.subarray(0, most);
    const sent = piece.length - this.parts.sendNow(this, piece).length;
    if (sent === first.length) this.#queue.shift();
    else this.#queue[0] = first.subarray(sent);
    this.#queuedBytes -= sent;
    this.parts.held(-sent);
    if (this.#queuedBytes > 0) return this.#sendWindow > 0;
    this.events.onWritable();
    if (this.#isBreaking) this.reset();
    else if (this.#isEnding && this.#queuedBytes === 0) this.#sayEnd();
    return false;
  }

  /** It is gone, by the other end's will or with the session. */
  broken(): void {
    const { events } = this;
    this.events = NOBODY;
    events.onBroken();
  }

  /** The session keeps it no longer. @returns how much was held for it. */
  letGo(): number {
    if (this.#isGone) return 0;
    this.#isGone = true;
    const held = this.heldBytes;
    this.#unread = this.#queuedBytes = 0;
    this.#queue = [];
    return held;
  }

  #sayEnd(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.parts.end(this);
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    // What has come and not left is still held, and counts.
    if (!this.#hasEnded || !this.#isEndedThere || this.#unread > 0 || this.#isGone) return;
    this.parts.closed(this);
    this.events.onDone();
  }
}
