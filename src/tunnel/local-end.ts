/**
 * Whether a process on this machine still holds the other end of a loopback
 * connection, from the kernel's own tables.
 *
 * A socket that its process has closed lives on without an owner until its
 * last bytes are taken (FIN_WAIT, inode 0), and is gone a minute later.
 */

import { hexPort, type ReadTable, tcpLine, tcpLines } from "../base/tcp-table.ts";

/**
 * Looks for the end at `peerPort` of the connection from `localPort`; by ports alone, so that an address written in
 * two ways is no question.
 *
 * @param read default: this network's tables.
 * @returns undefined where the tables cannot be read or know neither end: it is another machine's, or namespace's.
 */
export function isHeldHere(localPort: number, peerPort: number, read?: ReadTable): boolean | undefined {
  const [near, far] = [hexPort(localPort), hexPort(peerPort)];
  let hasNearEnd = false;
  for (const line of tcpLines(read)) {
    if (!line.includes(near) || !line.includes(far)) continue;
    const { local, remote, inode } = tcpLine(line);
    if (local.endsWith(near) && remote.endsWith(far)) hasNearEnd = true;
    if (local.endsWith(far) && remote.endsWith(near) && inode !== "0") return true;
  }
  return hasNearEnd ? false : undefined;
}
