/**
 * Connections whose other end is gone without a word.
 *
 * A gateway that is restarted, or forgets, drops what is sent on the connections
 * that stand, and lets new ones pass: the link is there, and a request on an old
 * one waits for a quarter of an hour. Whether an API server is slow or never had
 * the request says the kernel alone, which counts how often it has sent the same
 * bytes again. That costs no byte on the link and fits itself to its round trip:
 *
 *   round trip      sent again for the third time after
 *   up to 100 ms    1.4 s
 *   600 ms          8 to 13 s
 *
 * Both counts, of bytes sent again and of probes, begin anew with every
 * acknowledgement. Where there is no such table nothing is dead.
 */

import { hexPort, type ReadTable, tcpLine, tcpLines } from "../base/tcp-table.ts";
import { timedOut } from "./arrival.ts";

/** Sent so often again, or asked so often whether anybody is there, without an answer. */
const DEAD_AFTER = 3;

/** A socket as the table names it. */
export interface Ends {
  readonly localPort: number;
  readonly remotePort: number;
}

/** A connection that is looked at. */
export interface Mortal {
  /** Ends it where nothing sent on it arrives. */
  endDead(dead: DeadSockets): void;
}

/** What the kernel says at one moment. */
export class DeadSockets {
  readonly #dead = new Set<string>();

  /** @param read default: this network's tables. */
  constructor(read?: ReadTable) {
    for (const line of tcpLines(read)) {
      const { local, remote, sentAgain, probes } = tcpLine(line);
      if (sentAgain >= DEAD_AFTER || probes >= DEAD_AFTER) this.#dead.add(portOf(local) + portOf(remote));
    }
  }

  /** Whether what was sent on it is sent again and again. */
  has(socket: Ends | undefined): boolean {
    return socket !== undefined && this.#dead.has(hexPort(socket.localPort) + hexPort(socket.remotePort));
  }

  get isEmpty(): boolean {
    return this.#dead.size === 0;
  }
}

/** The end of a connection that was found dead. */
export function nothingArrives(): Error {
  return timedOut("the connection is dead: nothing arrives");
}

function portOf(address: string): string {
  return address.slice(address.lastIndexOf(":"));
}
