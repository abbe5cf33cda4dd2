/**
 * Whether a process on this machine still holds the other end of a loopback
 * connection, from the kernel's own tables.
 *
 * A socket that its process has closed lives on without an owner until its
 * last bytes are taken (FIN_WAIT, inode 0), and is gone a minute later.
 */

import { readFileSync } from "node:fs";

const TABLES = ["/proc/net/tcp", "/proc/net/tcp6"] as const;

/**
 * Looks for the end at `peerPort` of the connection from `localPort`; by ports alone, so that an address written in
 * two ways is no question.
 *
 * @param read gives a table's text, in the form of proc_net_tcp(5); throws where there is none.
 * @returns undefined where the tables cannot be read or know neither end: it is another machine's, or namespace's.
 */
export function isHeldHere(
  localPort: number,
  peerPort: number,
  read: (path: string) => string = (path) => readFileSync(path, "latin1"),
): boolean | undefined {
  const [near, far] = [hexPort(localPort), hexPort(peerPort)];
  let hasNearEnd = false;
  for (const table of TABLES) {
    let text;
    try {
      text = read(table);
    } catch {
      continue;
    }
    for (const line of text.split("\n")) {
      if (!line.includes(near) || !line.includes(far)) continue;
      const [, local = "", remote = "", , , , , , , inode = "0"] = line.trim().split(/ +/);
      if (local.endsWith(near) && remote.endsWith(far)) hasNearEnd = true;
      if (local.endsWith(far) && remote.endsWith(near) && inode !== "0") return true;
    }
  }
  return hasNearEnd ? false : undefined;
}

function hexPort(port: number): string {
  return `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
}
