/**
 * The windows of a connection, both ways.
 *
 * What may come is opened again when half of it has come, in one frame. What
 * may go out is what the other end has opened, and never more than the
 * protocol's largest window.
 *
 * Source: RFC 9113 sections 5.2 and 6.9.
 */

import { CODE, ConnectionError, DEFAULT_WINDOW, MAX_WINDOW } from "./frames.ts";

/** Windows that hold for all streams together. */
export class Windows {
  #in = DEFAULT_WINDOW;
  #came = 0;
  #out = DEFAULT_WINDOW;
  #initialOut = DEFAULT_WINDOW;

  /** @param size of what may come, once it was opened. */
  constructor(private readonly size: number) {}

  /** Opens the window to its size. @returns by how much. */
  open(): number {
    const grown = this.size - this.#in;
    this.#in = this.size;
    return grown;
  }

  /** Bytes came. @returns by how much the window is to be opened; 0 for not yet. @throws {ConnectionError} */
  received(bytes: number): number {
    this.#in -= bytes;
    if (this.#in < 0) throw new ConnectionError(CODE.flowControl, "more than the connection's window");
    this.#came += bytes;
    if (this.#came < this.size / 2) return 0;
    const grown = this.#came;
    this.#in += grown;
    this.#came = 0;
    return grown;
  }

  /** What may go out. */
  get out(): number {
    return this.#out;
  }

  /** The window that a new stream has for what goes out. */
  get initialOut(): number {
    return this.#initialOut;
  }

  /** Bytes went out. */
  sent(bytes: number): void {
    this.#out -= bytes;
  }

  /** The other end has opened its window. @throws {ConnectionError} */
  growOut(bytes: number): void {
    if (bytes === 0) throw new ConnectionError(CODE.protocol, "a window opened by nothing");
    this.#out = grown(this.#out, bytes);
  }

  /** What a new stream may send from now on. @returns by how much the windows of the present ones change. */
  setInitialOut(size: number): number {
    const change = size - this.#initialOut;
    this.#initialOut = size;
    return change;
  }
}

/** A window after it was opened, or closed by a setting. @throws {ConnectionError} beyond the largest. */
export function grown(window: number, bytes: number): number {
  if (window + bytes > MAX_WINDOW) throw new ConnectionError(CODE.flowControl, "a window beyond its bound");
  return window + bytes;
}
