/**
 * The one door a tunnel opens: kubelet's own port on this node.
 *
 * Kubelet may be bound to every address, to loopback or to the node's own: the
 * targets are tried in their order, and what was found is tried first next
 * time. One log line and one count for each stream.
 */

import type { Socket } from "bun";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { hostPortText, type HostPort } from "../base/address.ts";
import { Pipe, pipeHandlers, type PipeReport } from "../mux/pipe.ts";
import type { MuxStream, StreamEvents } from "../mux/stream.ts";
import { isHeldHere } from "./local-end.ts";
import { isSealedPing } from "./sealed-ping.ts";

/** What the door needs. */
export interface KubeletDoorParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Where kubelet may be found on this node, in order. */
  readonly targets: () => readonly HostPort[];
  /** A stream is over. */
  readonly onStream: (report: PipeReport) => void;
  /** A stream on which nothing moves for so long is ended. */
  readonly idleMs: number;
}

const DIAL_MS = 5_000;

/** The door. */
export class KubeletDoor {
  readonly #pipes = new Set<Pipe>();
  /** Where kubelet was found last. */
  #found = "";

  constructor(private readonly parts: KubeletDoorParts) {}

  /** Streams under way. */
  get count(): number {
    return this.#pipes.size;
  }

  /** A stream begins. */
  open(stream: MuxStream): StreamEvents {
    const pipe = new Pipe({
      nowMs: () => this.parts.clock.monotonicMs(),
      onClosed: (closed, report) => this.#closed(closed, report),
      isLeft: (socket) => isHeldHere(socket.localPort, socket.remotePort) === false,
      isPing: isSealedPing,
    });
    this.#pipes.add(pipe.joinStream(stream));
    void this.#dial(pipe);
    return pipe;
  }

  /** Ends what has been idle too long. */
  tick(): void {
    const before = this.parts.clock.monotonicMs() - this.parts.idleMs;
    for (const pipe of this.#pipes) if (pipe.movedMs < before) pipe.breakOff("idle");
  }

  /** Ends all of them. */
  stop(): void {
    for (const pipe of [...this.#pipes]) pipe.breakOff("broken");
  }

  async #dial(pipe: Pipe): Promise<void> {
    const targets = this.parts
      .targets()
      .toSorted((a, b) => Number(hostPortText(b) === this.#found) - Number(hostPortText(a) === this.#found));
    for (const target of targets) {
      if (!this.#pipes.has(pipe)) return;
      if (await this.#dialOne(pipe, target)) return;
    }
    this.parts.log.warn("kubelet does not answer", { tried: targets.map(hostPortText).join(",") });
    pipe.breakOff("unreachable");
  }

  async #dialOne(pipe: Pipe, target: HostPort): Promise<boolean> {
    let isLate = false;
    const cancel = this.parts.clock.after(DIAL_MS, () => {
      isLate = true;
      pipe.breakOff("unreachable");
    });
    try {
      const socket = await Bun.connect<Pipe>({
        hostname: target.host,
        port: target.port,
        allowHalfOpen: true,
        data: pipe,
        // Before the first byte can come, and not when the promise resolves.
        socket: pipeHandlers((opened: Socket<Pipe>) => pipe.joinSocket(opened)),
      });
      if (isLate) socket.terminate();
      this.#found = hostPortText(target);
      return true;
    } catch {
      return isLate;
    } finally {
      cancel();
    }
  }

  #closed(pipe: Pipe, report: PipeReport): void {
    this.#pipes.delete(pipe);
    const { streamId: stream, bytesIn, bytesOut, tookMs, end } = report;
    this.parts.log.info("tunnel stream", { stream, toKubelet: bytesOut, fromKubelet: bytesIn, tookMs, end });
    this.parts.onStream(report);
  }
}
