/**
 * Two TCP connections joined: what came to one replica goes to the one that
 * holds the tunnel. The same pipe as a tunnel's, with a connection in the place
 * of the stream.
 */

import type { Socket } from "bun";
import type { HostPort } from "../base/address.ts";
import { Pipe, pipeHandlers, type PipeReport, type PipeStream } from "../mux/pipe.ts";

/** A joint. */
export interface Joint {
  readonly movedMs: number;
  readonly isClosed: boolean;
  onClosed: () => void;
  breakOff(end: PipeReport["end"]): void;
}

/**
 * Dials, says the first words and joins.
 *
 * @returns undefined when nobody is there in time; the connection is left as it was.
 */
export async function joinSockets(
  socket: Socket<Pipe>,
  { host, port }: HostPort,
  words: string,
  patienceMs: number,
  nowMs: () => number,
): Promise<Joint | undefined> {
  let isClosed = false;
  const joint = {
    get movedMs() {
      return Math.max(near.movedMs, far.movedMs);
    },
    get isClosed() {
      return isClosed;
    },
    onClosed: () => {},
    breakOff(end: PipeReport["end"]) {
      near.breakOff(end);
      far.breakOff(end);
    },
  };
  let open = 2;
  const onClosed = () => {
    if (--open > 0) return;
    isClosed = true;
    joint.onClosed();
  };
  const [near, far] = [new Pipe({ nowMs, onClosed }), new Pipe({ nowMs, onClosed })];
  const [ofNear, ofFar] = twins(near, far);
  near.joinStream(ofNear);
  far.joinStream(ofFar);
  near.joinSocket(socket);
  // What it sends meanwhile waits in the far pipe, and then in its kernel.
  far.onData(Buffer.from(words));
  const late = setTimeout(() => joint.breakOff("unreachable"), patienceMs);
  try {
    const dialled = await Bun.connect<Pipe>({
      hostname: host,
      port,
      allowHalfOpen: true,
      data: far,
      socket: pipeHandlers((opened) => far.joinSocket(opened)),
    });
    if (isClosed) dialled.terminate();
  } catch {
    joint.breakOff("unreachable");
  } finally {
    clearTimeout(late);
  }
  return isClosed ? undefined : joint;
}

/** The stream of each is the connection of the other. */
function twins(near: Pipe, far: Pipe): readonly [PipeStream, PipeStream] {
  const ended = new Set<Pipe>();
  const streamOf = (own: Pipe, other: Pipe): PipeStream => ({
    id: 0,
    write(bytes) {
      other.onData(bytes);
      return other.isEmpty;
    },
    end() {
      if (ended.has(own)) return;
      ended.add(own);
      other.onEnd();
      if (ended.size === 2) for (const pipe of [near, far]) pipe.onDone();
    },
    reset: () => other.onBroken(),
    resetAfterwards: () => other.onBroken(),
    consumed: () => other.onWritable(),
  });
  return [streamOf(near, far), streamOf(far, near)];
}
