/**
 * A client's connection after an upgrade: bytes both ways, as a stream.
 */

import { Duplex } from "node:stream";

/** What is paused and ended under the stream. */
interface Under {
  pause(): void;
  resume(): void;
  end(): void;
  setKeepAlive(isOn: boolean, initialDelayMs: number): unknown;
}

/** A client on this machine that is frozen or gone is found out within minutes. */
const KEEPALIVE_MS = 30_000;

/** The client's side of an upgraded connection. */
export class UpgradedStream extends Duplex {
  #onDrained: (() => void) | undefined;
  #hasEnded = false;

  constructor(
    private readonly socket: Under,
    private readonly send: (bytes: Uint8Array) => boolean,
    private readonly terminate: () => void,
  ) {
    super({ allowHalfOpen: true });
    socket.setKeepAlive(true, KEEPALIVE_MS);
  }

  /** Bytes came from the client. */
  received(bytes: Uint8Array): void {
    if (!this.push(Buffer.from(bytes))) this.socket.pause();
  }

  /** The client sends no more. */
  ended(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.push(null);
  }

  /** Everything that waited has gone. */
  drained(): void {
    const done = this.#onDrained;
    this.#onDrained = undefined;
    done?.();
  }

  /** The connection is gone. */
  gone(): void {
    this.ended();
    this.drained();
    this.destroy();
  }

  override _read(): void {
    this.socket.resume();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.send(chunk)) done();
    else this.#onDrained = done;
  }

  override _final(done: (error?: Error | null) => void): void {
    this.socket.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.terminate();
    done(error);
  }
}
