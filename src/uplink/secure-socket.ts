/**
 * A raw TLS socket to an API server, for clients that frame HTTP themselves.
 *
 * Chain, name and address of the server are judged by the runtime before our
 * certificate goes out. TLS 1.2 and later.
 */

import type { Socket } from "bun";
import { isIP } from "node:net";
import type { Clock } from "../base/clock.ts";
import type { Mortal } from "./dead-sockets.ts";
import type { TlsMaterial } from "./upstream.ts";

/** Where connections lead, and with what. */
export interface SecureTarget {
  /** https://HOST:PORT */
  readonly server: string;
  readonly tls: TlsMaterial;
  readonly clock: Clock;
  /** All connections that stand, those left behind too: whoever opens one adds it. */
  readonly standing?: Set<Mortal>;
}

/** A host and a port. */
export interface Place {
  readonly host: string;
  readonly port: number;
}

/** A connection that is not there after this never will be. */
export const CONNECT_DEADLINE_MS = 10_000;
/** OpenSSL's number for TLS 1.2. */
const TLS_1_2 = 0x0303;

/** Host, without an IPv6 address's brackets, and port. */
export function placeOf(url: URL): Place {
  const usual = url.protocol === "https:" ? 443 : 80;
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port: url.port === "" ? usual : Number(url.port) };
}

/**
 * Opens a socket; its handlers tell of everything that comes of it.
 *
 * @param alpn what is offered, in ALPN's wire form: a length and a name each.
 */
export function connectSecurely<Data>(
  { host, port }: Place,
  tls: TlsMaterial,
  alpn: Buffer,
  data: Data,
  socket: Bun.SocketHandler<Data>,
): Promise<Socket<Data>> {
  const serverName = tls.serverName ?? (isIP(host) === 0 ? host : undefined);
  return Bun.connect<Data>({
    hostname: host,
    port,
    data,
    socket,
    tls: {
      ca: tls.ca,
      ...(tls.cert === undefined ? {} : { cert: tls.cert, key: tls.key }),
      ...(serverName === undefined ? {} : { serverName }),
      minVersion: TLS_1_2,
      ALPNProtocols: alpn,
      rejectUnauthorized: true,
    } as Bun.TLSOptions,
  });
}
