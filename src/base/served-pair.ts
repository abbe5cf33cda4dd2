/**
 * The certificate that a raw listener serves, exchanged while it listens.
 *
 * The runtime fixes a listener's certificate when it is opened. Opening another
 * one on the port resets whatever waits in the kernel's queue, so here each
 * connection is given the present certificate, and the CAs by which its client
 * is judged, between its acceptance and its handshake.
 *
 * A connection that is met so gets no answer to ALPN (the runtime keeps that
 * with the listener's first certificate): clients then speak HTTP/1.1, which is
 * all that our listeners speak. Sessions of an earlier certificate are not
 * resumed; test/front/listen holds both.
 */
import { createSecureContext } from "node:tls";
import type { Socket } from "bun";

/** What connections are met with; PEM. */
export interface ServedFiles {
  readonly certPem: string;
  readonly keyPem: string;
  /** Who signs clients. */
  readonly caPem: string;
}

/** `setKeyCert` takes what a SecureContext holds; the types of neither tell. */
type WithKeyCert = Socket<never> & { setKeyCert(context: unknown): void };

/** One listener's. */
export class ServedPair {
  #context: object | undefined;

  /** Counts for connections that are accepted from now on. @throws the TLS library's error on what cannot be served; the former one stands. */
  renew({ certPem, keyPem, caPem }: ServedFiles): void {
    const { context } = createSecureContext({ cert: certPem, key: keyPem, ca: caPem, minVersion: "TLSv1.2" });
    this.#context = context as object;
  }

  /** To be called in a listener's `open`: the handshake has not begun. */
  meet(socket: Socket<never>): void {
    if (this.#context !== undefined) (socket as WithKeyCert).setKeyCert(this.#context);
  }
}
