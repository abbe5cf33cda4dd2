/**
 * Accept: TLS on loopback, HTTP/1.1 alone, client certificates optional.
 *
 * A raw TLS socket with framing of our own: a third of the CPU of the
 * runtime's HTTP servers, and no frames of HTTP/2 that a stranger could flood
 * us with. ALPN says http/1.1, and clients that would rather speak HTTP/2 fall
 * back.
 *
 * Connections are bounded. When the last place is taken, whoever has been idle
 * longest gives way, strangers first; and a client whose certificate the
 * cluster's CA signed finds a place where a stranger finds none.
 */

import type { Socket, TCPSocketListener } from "bun";
import type { PeerCertificate } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { passedThrough } from "../base/memory.ts";
import { ServedPair } from "../base/served-pair.ts";
import { Connection, type ConnectionParts, type RawSocket } from "./connection.ts";
import type { Peer } from "../callers/identify.ts";
import type { Exchange } from "./exchange.ts";
import type { UpgradedStream } from "./upgraded-stream.ts";

/** An address cannot be listened on. */
export class ListenError extends EdgeError {
  override readonly name = "ListenError";
  readonly code = "LISTEN";
}

/** How to listen. */
export interface ListenOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly certPem: string;
  readonly keyPem: string;
  readonly clientCaPem: string;
  /** Names by which clients may call us, beside loopback's and the address itself. Default none. */
  readonly names?: readonly string[];
  readonly clock: Clock;
  readonly onRequest: (exchange: Exchange) => void;
  readonly onUpgrade: (exchange: Exchange, stream: UpgradedStream, early: Uint8Array) => void;
}

/** An open listener. */
export interface Listener {
  readonly port: number;
  /**
   * New connections are met with another certificate and other client CAs; nobody who is on the way is turned away.
   *
   * @param isStillTrusted of a client's certificate, DER: an open connection on one that is not ends at once, all others live on.
   * @throws the TLS library's error on what cannot be served; what was served before stands.
   */
  renew(
    pair: { readonly certPem: string; readonly keyPem: string; readonly clientCaPem: string },
    isStillTrusted?: (certificate: Uint8Array) => boolean,
  ): void;
  /** Takes no more connections and ends the open ones. */
  stop(): void;
}

/** Connections of everybody; those of clients with a certificate of the cluster have some more. */
const MAX_CONNECTIONS = 2_000;
const RESERVED_CONNECTIONS = 256;
/** How often deadlines are looked at. */
const TICK_MS = 2_000;
/** OpenSSL's number for TLS 1.2. */
const TLS_1_2 = 0x0303;
/** ALPN's wire form: a length, then the name. */
const ALPN_HTTP_1_1 = Buffer.from("\x08http/1.1", "latin1");

type ClientSocket = Socket<Connection>;

/**
 * Opens a listener.
 *
 * @throws {ListenError} naming the address when it is taken or not ours.
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const connections = new Set<Connection>();
  const parts: ConnectionParts = {
    nowMs: () => options.clock.monotonicMs(),
    isOurHost: hostTest([options.host, ...(options.names ?? [])]),
    onRequest: options.onRequest,
    onUpgrade: options.onUpgrade,
  };
  const served = new ServedPair();
  let isStillTrusted: (certificate: Uint8Array) => boolean = () => true;
  const letGo = (connection: Connection) => {
    const certificate = connection.isKnown ? connection.certificate : undefined;
    if (certificate !== undefined && !isStillTrusted(certificate)) connection.terminate();
  };
  const server = openServer(options, socketHandlers(connections, parts, served, letGo));
  let cancelTick: (() => void) | undefined;
  const tick = () => {
    const nowMs = parts.nowMs();
    for (const connection of connections) connection.tick(nowMs);
    cancelTick = options.clock.after(TICK_MS, tick);
  };
  tick();
  return {
    port: server.port,
    renew({ certPem, keyPem, clientCaPem }, stillTrusted) {
      served.renew({ certPem, keyPem, caPem: clientCaPem });
      if (stillTrusted === undefined) return;
      isStillTrusted = stillTrusted;
      for (const connection of [...connections]) letGo(connection);
    },
    stop() {
      cancelTick?.();
      server.stop(false);
      for (const connection of connections) connection.terminate();
    },
  };
}

function openServer(
  {
    host,
    port,
    certPem,
    keyPem,
    clientCaPem,
  }: Pick<ListenOptions, "host" | "port" | "certPem" | "keyPem" | "clientCaPem">,
  socket: Bun.SocketHandler<Connection>,
): TCPSocketListener<Connection> {
  const tls = {
    key: keyPem,
    cert: certPem,
    ca: clientCaPem,
    requestCert: true,
    // Who shows no certificate may still have a token; `identify` decides.
    rejectUnauthorized: false,
    minVersion: TLS_1_2,
    ALPNProtocols: ALPN_HTTP_1_1,
  };
  try {
    return Bun.listen<Connection>({ hostname: host, port, exclusive: true, tls: tls as Bun.TLSOptions, socket });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new ListenError(
      `Cannot listen on ${host}:${port}: ${code ?? message}; choose another address with --listen`,
      { cause: error },
    );
  }
}

function socketHandlers(
  connections: Set<Connection>,
  parts: ConnectionParts,
  served: ServedPair,
  letGo: (connection: Connection) => void,
): Bun.SocketHandler<Connection> {
  const gone = (connection: Connection) => connections.delete(connection);
  return {
    binaryType: "buffer",
    open(socket: ClientSocket) {
      if (connections.size >= MAX_CONNECTIONS) makeRoom(connections);
      if (connections.size >= MAX_CONNECTIONS + RESERVED_CONNECTIONS) {
        socket.terminate();
        return;
      }
      served.meet(socket as Socket<never>);
      socket.data = new Connection(new SocketWay(socket), parts, gone);
      connections.add(socket.data);
    },
    handshake(socket: ClientSocket, isDone: boolean, error: Error | null) {
      const connection = socket.data;
      if (connection === undefined) return;
      if (!isDone) return connection.terminate();
      connection.secured(new SocketPeer(socket, error));
      // It may have come before the CAs changed.
      letGo(connection);
      if (connections.size > MAX_CONNECTIONS && !connection.isKnown) connection.terminate();
    },
    data(socket: ClientSocket, bytes: Buffer) {
      passedThrough(bytes.length);
      socket.data?.received(bytes);
    },
    drain: (socket: ClientSocket) => socket.data?.drained(),
    end: (socket: ClientSocket) => socket.data?.ended(),
    close: (socket: ClientSocket) => socket.data?.closed(),
    error: (socket: ClientSocket) => socket.data?.terminate(),
  } as Bun.SocketHandler<Connection>;
}

/** The connection that has been idle longest gives way, one of a stranger before any other. */
function makeRoom(connections: ReadonlySet<Connection>): void {
  let chosen: Connection | undefined;
  for (const connection of connections) {
    if (!connection.isIdle) continue;
    const isBetter =
      chosen === undefined ||
      (chosen.isKnown && !connection.isKnown) ||
      (chosen.isKnown === connection.isKnown && connection.sinceMs < chosen.sinceMs);
    if (isBetter) chosen = connection;
  }
  chosen?.terminate();
}

/** One object for a connection, for there are many: closures would be a dozen. */
class SocketWay implements RawSocket {
  constructor(private readonly socket: ClientSocket) {}

  write(bytes: Uint8Array): number {
    return this.socket.write(bytes);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  end(): void {
    this.socket.end();
  }

  setKeepAlive(isOn: boolean, initialDelayMs: number): unknown {
    return this.socket.setKeepAlive(isOn, initialDelayMs);
  }

  terminate(): void {
    this.socket.terminate();
  }
}

/** Reads the certificate when it is asked for, and keeps nothing of it: `identify` remembers what it needs. */
class SocketPeer implements Peer {
  readonly authorized: boolean;
  readonly authorizationError: string | undefined;

  constructor(
    private readonly socket: ClientSocket,
    error: Error | null,
  ) {
    this.authorized = socket.authorized && error === null;
    this.authorizationError = (error as NodeJS.ErrnoException | null)?.code;
  }

  getPeerCertificate(): PeerCertificate | undefined {
    return this.socket.getPeerCertificate() as unknown as PeerCertificate | undefined;
  }
}

/**
 * Whether a Host header names us: a page in somebody's browser that resolves
 * its own name to loopback (DNS rebinding) does not.
 */
function hostTest(names: readonly string[]): (host: string) => boolean {
  const ours = new Set([...names.map((name) => name.toLowerCase()), "localhost", "::1"]);
  return (host) => {
    const name = nameOf(host.toLowerCase());
    return ours.has(name) || name.startsWith("127.");
  };
}

/** Without the port, and an address of IPv6 without its brackets. */
function nameOf(host: string): string {
  if (host.startsWith("[")) return host.slice(1, host.indexOf("]"));
  const colon = host.lastIndexOf(":");
  const name = colon < 0 ? host : host.slice(0, colon);
  return name.endsWith(".") ? name.slice(0, -1) : name;
}
