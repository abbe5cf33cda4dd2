/**
 * Where agents come in: TLS with the node's certificate, or plainly behind a
 * balancer that ends TLS. Nobody is anybody before the cluster's CA has said so.
 *
 * What a stranger can take up is bounded: connections that have not been
 * welcomed, the bytes of a head, the seconds until the greeting is over.
 */

import type { Socket, TCPSocketListener } from "bun";
import type { PeerCertificate } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { ServedPair } from "../base/served-pair.ts";
import { AgentConnection, type AgentParts } from "./agent-connection.ts";

/** An address cannot be listened on. */
export class GatewayListenError extends EdgeError {
  override readonly name = "GatewayListenError";
  readonly code = "LISTEN";
}

/** How to listen for agents. */
export interface AgentListenOptions extends AgentParts {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** Undefined listens without TLS: for a balancer's pods alone. */
  readonly pair: { readonly certPem: string; readonly keyPem: string } | undefined;
  readonly clock: Clock;
  /** Connections at once. Default 20000. */
  readonly maxConnections?: number;
}

/** An open listener. */
export interface AgentListener {
  readonly port: number;
  /** Connections, welcomed or not. */
  readonly count: number;
  /** Meets new connections with other certificates; those that are open or on the way go on. @throws the TLS library's error. */
  renew(pair: { readonly certPem: string; readonly keyPem: string }): void;
  /** Takes no more connections. */
  close(): void;
  /** Ends those that are open. */
  stop(): void;
}

const MAX_CONNECTIONS = 20_000;
/** Of those that nobody knows yet. */
const MAX_STRANGERS = 2_000;
const TICK_MS = 1_000;
/** OpenSSL's number for TLS 1.2. */
const TLS_1_2 = 0x0303;
const ALPN_HTTP_1_1 = Buffer.from("\x08http/1.1", "latin1");

type AgentSocket = Socket<AgentConnection>;

/** @throws {GatewayListenError} naming the address. */
export function listenForAgents(options: AgentListenOptions): AgentListener {
  const connections = new Set<AgentConnection>();
  const served = new ServedPair();
  const server = open(options, socketHandlers(options, connections, served));
  let cancelTick = () => {};
  const tick = () => {
    const nowMs = options.clock.monotonicMs();
    for (const connection of connections) connection.tick(nowMs);
    cancelTick = options.clock.after(TICK_MS, tick);
  };
  tick();
  return {
    port: server.port,
    get count() {
      return connections.size;
    },
    renew: (pair) => served.renew({ ...pair, caPem: options.caPem() }),
    close: () => server.stop(false),
    stop() {
      cancelTick();
      server.stop(false);
      for (const connection of connections) connection.terminate();
    },
  };
}

function open(
  { host, port, pair, caPem }: AgentListenOptions,
  socket: Bun.SocketHandler<AgentConnection>,
): TCPSocketListener<AgentConnection> {
  const tls = pair && {
    key: pair.keyPem,
    cert: pair.certPem,
    ca: caPem(),
    requestCert: true,
    // Who shows none is challenged; who shows a wrong one is refused in words.
    rejectUnauthorized: false,
    minVersion: TLS_1_2,
    ALPNProtocols: ALPN_HTTP_1_1,
  };
  try {
    return Bun.listen<AgentConnection>({
      hostname: host,
      port,
      exclusive: true,
      socket,
      ...(tls === undefined ? {} : { tls: tls as Bun.TLSOptions }),
    });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new GatewayListenError(`Cannot listen on ${host}:${port}: ${code ?? message}; choose another with --listen`, {
      cause: error,
    });
  }
}

function socketHandlers(
  { maxConnections = MAX_CONNECTIONS, ...parts }: AgentListenOptions,
  connections: Set<AgentConnection>,
  served: ServedPair,
): Bun.SocketHandler<AgentConnection> {
  let strangers = 0;
  const isFull = () => connections.size >= maxConnections || strangers >= MAX_STRANGERS;
  return {
    binaryType: "buffer",
    open(socket: AgentSocket) {
      if (isFull()) return void socket.terminate();
      served.meet(socket as Socket<never>);
      strangers++;
      let isStranger = true;
      const known = () => {
        if (isStranger) strangers--;
        isStranger = false;
      };
      const connection: AgentConnection = new AgentConnection(socket, parts, {
        onWelcome: known,
        onClosed() {
          known();
          connections.delete(connection);
        },
      });
      socket.data = connection;
      connections.add(connection);
    },
    handshake(socket: AgentSocket, isDone: boolean, error: Error | null) {
      if (!isDone) return socket.data?.terminate();
      if (!socket.authorized || error !== null) return;
      const shown = socket.getPeerCertificate() as unknown as PeerCertificate | undefined;
      socket.data?.showed(shown?.raw);
    },
    data: (socket: AgentSocket, bytes: Buffer) => socket.data?.received(bytes),
    drain: (socket: AgentSocket) => socket.data?.drained(),
    end: (socket: AgentSocket) => socket.data?.terminate(),
    close: (socket: AgentSocket) => socket.data?.closed(),
    error: (socket: AgentSocket) => socket.data?.terminate(),
  } as Bun.SocketHandler<AgentConnection>;
}
