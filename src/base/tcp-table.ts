/**
 * The kernel's tables of this network's TCP sockets.
 *
 * Source: proc_net_tcp(5): `retrnsmt` counts how often the same bytes were sent
 * again, `timeout` the probes that nobody has answered.
 */

import { readFileSync } from "node:fs";

const TABLES = ["/proc/net/tcp", "/proc/net/tcp6"] as const;

/** Gives a table's text; throws where there is none. */
export type ReadTable = (path: string) => string;

/** A socket's line, in fields. */
export interface TcpLine {
  /** ADDRESS:PORT in hexadecimal, as `hexPort` writes the port. */
  readonly local: string;
  readonly remote: string;
  readonly sentAgain: number;
  readonly probes: number;
  /** "0" where no process holds it. */
  readonly inode: string;
}

/** The lines of all tables that can be read. */
export function* tcpLines(read: ReadTable = (path) => readFileSync(path, "latin1")): Iterable<string> {
  for (const table of TABLES) {
    let text;
    try {
      text = read(table);
    } catch {
      continue;
    }
    yield* text.split("\n").slice(1);
  }
}

/** A line's fields; those of half a line are empty. */
export function tcpLine(line: string): TcpLine {
  const [, local = "", remote = "", , , , sentAgain = "0", , probes = "0", inode = "0"] = line.trim().split(/ +/);
  return { local, remote, sentAgain: Number.parseInt(sentAgain, 16), probes: Number(probes), inode };
}

/** A port as the tables end an address: `:192B`. */
export function hexPort(port: number): string {
  return `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
}
