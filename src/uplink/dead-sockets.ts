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
 * Source: Linux's documentation of /proc/net/tcp: `retrnsmt`, and `timeout`, the
 * probes that nobody has answered; both begin anew with every acknowledgement.
 * Elsewhere nothing is known, and nothing is dead.
 */

import { readFileSync } from "node:fs";

/** Sent so often again, or asked so often whether anybody is there, without an answer. */
const DEAD_AFTER = 3;
/** The tables of this process's network. */
const TABLES = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

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

  /** @param tables text of proc's tables; default those of this process. */
  constructor(tables: readonly string[] = TABLES.map(textOf)) {
    for (const table of tables)
      for (const line of table.split("\n").slice(1)) {
        const [, local, remote, , , , sentAgain = "0", , probes = "0"] = line.trim().split(/\s+/);
        if (Number.parseInt(sentAgain, 16) >= DEAD_AFTER || Number(probes) >= DEAD_AFTER)
          this.#dead.add(`${portOf(local)}:${portOf(remote)}`);
      }
  }

  /** Whether what was sent on it is sent again and again. */
  has(socket: Ends | undefined): boolean {
    return socket !== undefined && this.#dead.has(`${socket.localPort}:${socket.remotePort}`);
  }

  get isEmpty(): boolean {
    return this.#dead.size === 0;
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function portOf(address: string | undefined): number {
  return Number.parseInt(address?.slice(address.lastIndexOf(":") + 1) ?? "", 16);
}
