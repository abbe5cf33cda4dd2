/**
 * By which names and addresses the API server is known: those in the
 * certificate it serves, and the host in our own way to it.
 *
 * One handshake and no request. Whoever sits behind an HTTP proxy learns the
 * host alone.
 */

import { connect } from "node:tls";
import { EdgeError } from "../base/errors.ts";
import type { KubernetesTarget } from "../cluster/kubernetes.ts";

/** Nobody served a certificate that can be believed. */
export class ApiServerNamesError extends EdgeError {
  override readonly name = "ApiServerNamesError";
  readonly code = "API_SERVER_NAMES";
}

const DEADLINE_MS = 10_000;

/** Asks. @throws {ApiServerNamesError} */
export async function apiServerNames({
  server,
  caPem,
  tlsServerName,
  proxyUrl,
}: KubernetesTarget): Promise<readonly string[]> {
  const { hostname, port } = new URL(server);
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const known = tlsServerName === undefined ? [host] : [host, tlsServerName];
  if (proxyUrl !== undefined) return known;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect({
    host,
    port: port === "" ? 443 : Number(port),
    ca: caPem(),
    ...(tlsServerName === undefined ? {} : { servername: tlsServerName }),
  });
  const fail = (why: string, cause?: unknown) =>
    reject(new ApiServerNamesError(`Cannot read the certificate of "${host}": ${why}`, { cause }));
  socket.setTimeout(DEADLINE_MS, () => fail("no answer in time"));
  socket.once("error", (error: NodeJS.ErrnoException) => fail(error.code ?? error.name, error));
  socket.once("secureConnect", () => resolve(socket.getPeerCertificate().subjectaltname ?? ""));
  try {
    return [...known, ...namesIn(await promise)];
  } finally {
    socket.destroy();
  }
}

/** "DNS:api.example, IP Address:10.0.0.1", as the runtime writes it. */
function namesIn(alternatives: string): string[] {
  return [...alternatives.matchAll(/(?:^|, )(?:DNS|IP Address):([^,]+)/g)].map(([, name]) => name!);
}
