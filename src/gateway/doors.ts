/**
 * A port for each node, where the API server dials it.
 *
 * A connection becomes a stream of the node's tunnel, byte for byte: TLS from
 * the API server to kubelet goes through untouched, so nothing here could read
 * it, and kubelet itself judges who may do what. Where another replica holds
 * the tunnel, the connection is handed over to it, once and no further.
 */

import type { Socket, TCPSocketListener } from "bun";
import { BlockList, isIP } from "node:net";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { hostPortText, parseHostPort } from "../base/address.ts";
import { Pipe, pipeHandlers, type PipeReport } from "../mux/pipe.ts";
import { joinSockets, type Joint } from "./joint.ts";
import type { AgentTunnel } from "./agent-connection.ts";
import { GatewayListenError } from "./agents.ts";

/** What doors need. */
export interface DoorParts {
  /** The address on which nodes' ports and handovers are listened on. */
  readonly host: string;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  /** The tunnel that is held here; undefined when none is. */
  readonly tunnelOf: (nodeName: string) => AgentTunnel | undefined;
  /** Where another replica takes what is for this node, ADDRESS:PORT; undefined when nobody holds it. */
  readonly handoverOf: (nodeName: string) => string | undefined;
  /** Addresses that may dial, as ADDRESS/BITS; none: everybody who reaches the port. */
  readonly allowFrom: readonly string[];
  /** A stream on which nothing moves for so long is ended. */
  readonly idleMs: number;
}

/** Of one replica. */
const MAX_CONNECTIONS = 20_000;
const MAX_NAME_BYTES = 256;
const HANDOVER_MS = 5_000;
const CONNECT_MS = 5_000;

/** All doors of a replica. */
export class Doors {
  readonly #doors = new Map<string, { readonly port: number; readonly server: TCPSocketListener<Pipe> }>();
  readonly #pipes = new Set<Pipe>();
  readonly #joints = new Set<Joint>();
  readonly #allowed: BlockList | undefined;
  readonly #counts;
  #handover: TCPSocketListener<unknown> | undefined;

  constructor(private readonly parts: DoorParts) {
    this.#allowed = allowList(parts.allowFrom);
    const { metrics } = parts;
    this.#counts = {
      streams: metrics.counter("holdfast_gateway_streams_total", "Connections to nodes, by how they ended.", {
        end: ["ended", "broken", "idle", "handed over", "refused"],
      }),
      bytes: metrics.counter("holdfast_gateway_bytes_total", "Bytes carried, by direction.", {
        direction: ["to node", "from node"],
      }),
    };
  }

  /** Connections under way. */
  get count(): number {
    return this.#pipes.size + this.#joints.size;
  }

  /** Ports that are open. */
  get portCount(): number {
    return this.#doors.size;
  }

  /** Where other replicas hand over to. */
  get handoverPort(): number {
    return this.#handover?.port ?? 0;
  }

  /** Opens a node's port, unless it is. @throws {GatewayListenError} */
  open(nodeName: string, port: number): void {
    const known = this.#doors.get(nodeName);
    if (known?.port === port) return;
    this.close(nodeName);
    const server = this.#listen(
      port,
      pipeHandlers((socket) => this.#came(nodeName, socket)),
    );
    this.#doors.set(nodeName, { port, server });
  }

  /** Closes a node's port; connections through it go on. */
  close(nodeName: string): void {
    this.#doors.get(nodeName)?.server.stop(false);
    this.#doors.delete(nodeName);
  }

  /** Takes what other replicas hand over. @throws {GatewayListenError} */
  takeHandovers(port: number): void {
    const waiting = new WeakMap<object, { name: string; timer: Timer }>();
    const handlers = pipeHandlers((socket) => {
      const timer = setTimeout(() => socket.terminate(), HANDOVER_MS);
      timer.unref();
      waiting.set(socket, { name: "", timer });
    });
    this.#handover = this.#listen(port, {
      ...handlers,
      data: (socket: Socket<Pipe>, bytes: Buffer) => {
        const state = waiting.get(socket);
        if (state === undefined) return socket.data?.received(bytes);
        state.name += bytes.toString("latin1");
        const end = state.name.indexOf("\n");
        if (end < 0 && state.name.length <= MAX_NAME_BYTES) return;
        clearTimeout(state.timer);
        waiting.delete(socket);
        const nodeName = state.name.slice(0, Math.max(0, end));
        const tunnel = end > MAX_NAME_BYTES ? undefined : this.parts.tunnelOf(nodeName);
        if (tunnel === undefined || !this.#carry(nodeName, tunnel, socket)) return void socket.terminate();
        const early = Buffer.from(state.name.slice(end + 1), "latin1");
        if (early.length > 0) socket.data.received(early);
      },
      close: (socket: Socket<Pipe>, error?: Error) => {
        clearTimeout(waiting.get(socket)?.timer);
        socket.data?.closed(error !== undefined);
      },
    } as Bun.SocketHandler<Pipe>);
  }

  /** Ends what has been idle too long. */
  tick(): void {
    const before = this.parts.nowMs() - this.parts.idleMs;
    for (const pipe of this.#pipes) if (pipe.movedMs < before) pipe.breakOff("idle");
    for (const joint of this.#joints) if (joint.movedMs < before) joint.breakOff("idle");
  }

  /** Closes everything. */
  stop(): void {
    for (const name of [...this.#doors.keys()]) this.close(name);
    this.#handover?.stop(true);
    for (const pipe of [...this.#pipes]) pipe.breakOff("broken");
    for (const joint of [...this.#joints]) joint.breakOff("broken");
  }

  #listen(port: number, socket: Bun.SocketHandler<Pipe>): TCPSocketListener<Pipe> {
    const { host } = this.parts;
    try {
      return Bun.listen<Pipe>({ hostname: host, port, exclusive: true, allowHalfOpen: true, socket });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new GatewayListenError(`Cannot listen on ${host}:${port}: ${code ?? message}; see --ports`, {
        cause: error,
      });
    }
  }

  #came(nodeName: string, socket: Socket<Pipe>): void {
    const from = socket.remoteAddress;
    if (this.count >= MAX_CONNECTIONS || !this.#isAllowed(from)) return this.#refuse(nodeName, socket);
    const tunnel = this.parts.tunnelOf(nodeName);
    if (tunnel !== undefined && this.#carry(nodeName, tunnel, socket)) return;
    const handover = tunnel === undefined ? this.parts.handoverOf(nodeName) : undefined;
    if (handover === undefined) return this.#refuse(nodeName, socket);
    void this.#handOver(nodeName, handover, socket);
  }

  #refuse(nodeName: string, socket: Socket<Pipe>): void {
    this.#counts.streams.add({ end: "refused" });
    this.parts.log.warn("connection refused", { node: nodeName, from: socket.remoteAddress });
    socket.terminate();
  }

  /** @returns false when the tunnel takes no more. */
  #carry(nodeName: string, tunnel: AgentTunnel, socket: Socket<Pipe>): boolean {
    const from = `${socket.remoteAddress}`;
    const pipe = new Pipe({
      nowMs: this.parts.nowMs,
      onClosed: (closed, report) => this.#closed(nodeName, from, closed, report),
    });
    const stream = tunnel.session.open(pipe);
    if (stream === undefined) return false;
    this.#pipes.add(pipe);
    pipe.joinStream(stream).joinSocket(socket);
    return true;
  }

  #closed(
    node: string,
    from: string,
    pipe: Pipe,
    { streamId: stream, bytesIn, bytesOut, tookMs, end }: PipeReport,
  ): void {
    this.#pipes.delete(pipe);
    this.#counts.streams.add({ end });
    this.#counts.bytes.add({ direction: "to node" }, bytesIn);
    this.#counts.bytes.add({ direction: "from node" }, bytesOut);
    this.parts.log.info("stream", { node, from, stream, toNode: bytesIn, fromNode: bytesOut, tookMs, end });
  }

  async #handOver(nodeName: string, handover: string, socket: Socket<Pipe>): Promise<void> {
    const place = parseHostPort(handover);
    const joint =
      place === undefined ? undefined : await joinSockets(socket, place, `${nodeName}\n`, CONNECT_MS, this.parts.nowMs);
    if (joint === undefined) return this.#refuse(nodeName, socket);
    this.#counts.streams.add({ end: "handed over" });
    this.#joints.add(joint);
    joint.onClosed = () => void this.#joints.delete(joint);
    if (joint.isClosed) this.#joints.delete(joint);
    this.parts.log.info("handed over", { node: nodeName, from: socket.remoteAddress, to: hostPortText(place!) });
  }

  #isAllowed(from: string): boolean {
    const plain = from.startsWith("::ffff:") ? from.slice(7) : from;
    return this.#allowed === undefined || this.#allowed.check(plain, isIP(plain) === 6 ? "ipv6" : "ipv4");
  }
}

function allowList(ranges: readonly string[]): BlockList | undefined {
  if (ranges.length === 0) return undefined;
  const list = new BlockList();
  for (const range of ranges) {
    const [address = "", bits = ""] = range.split("/");
    list.addSubnet(address, Number(bits), isIP(address) === 6 ? "ipv6" : "ipv4");
  }
  return list;
}
