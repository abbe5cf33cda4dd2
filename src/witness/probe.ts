/**
 * Whether a neighbour's machine answers on the LAN: one TCP connection to its kubelet.
 *
 * A refusal is an answer too: the machine lives. Who answers is not proved, and
 * need not be: a false "heard" only holds a node longer, which is what its
 * owner asked for. What matters is that nobody can make us scan: addresses are
 * literal and of a network, ports not below 1024, and all of it is rationed.
 */

import { connect, isIP } from "node:net";

/** What came of it. */
export type ProbeOutcome = "heard" | "silent" | "not-tried";

const DEADLINE_MS = 3_000;
const LOWEST_PORT = 1_024;
/** What says that no packet came back; everything else came from somebody. */
const UNANSWERED = new Set(["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN"]);
/** What says that we could not even ask. */
const OWN_TROUBLE = new Set(["EMFILE", "ENFILE", "EACCES", "EPERM", "ENOBUFS", "EADDRNOTAVAIL", "EINVAL"]);

/** Tries once. Never throws. */
export async function probeNeighbour(
  address: string,
  port: number,
  deadlineMs: number = DEADLINE_MS,
): Promise<ProbeOutcome> {
  if (!mayProbe(address, port)) return "not-tried";
  const { promise, resolve } = Promise.withResolvers<ProbeOutcome>();
  const socket = connect({ host: address, port });
  const timer = setTimeout(() => resolve("silent"), deadlineMs);
  socket.once("connect", () => resolve("heard"));
  socket.once("error", ({ code = "" }: NodeJS.ErrnoException) =>
    resolve(UNANSWERED.has(code) ? "silent" : OWN_TROUBLE.has(code) ? "not-tried" : "heard"),
  );
  const outcome = await promise;
  clearTimeout(timer);
  socket.destroy();
  return outcome;
}

/** Whether it is an address of another machine on some network. */
export function mayProbe(address: string, port: number): boolean {
  if (port < LOWEST_PORT || port > 65_535) return false;
  if (isIP(address) === 4) return !/^(?:0|127|169\.254|22[4-9]|23\d|24\d|25\d)\./.test(address);
  if (isIP(address) !== 6 || address.includes("%")) return false;
  const plain = new URL(`http://[${address}]`).hostname.slice(1, -1);
  return !/^(?:::1?$|::ffff:|fe[89ab]|ff)/.test(plain);
}
