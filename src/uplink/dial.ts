/**
 * A TLS connection to the API server, through an HTTP proxy where one is named.
 *
 * For what the runtime's `fetch` cannot do: upgrades, and requests that must
 * go out byte for byte or once only.
 */

import * as net from "node:net";
import * as tls from "node:tls";
import { CONNECT_DEADLINE_MS, placeOf } from "./secure-socket.ts";
import type { TlsMaterial } from "./upstream.ts";

const MAX_PROXY_HEAD_BYTES = 16_384;

/** Where to, and by which way. */
export interface DialTarget {
  /** https://HOST:PORT */
  readonly server: string;
  readonly tls: TlsMaterial;
  /** http:// or https://, with user and password when it wants them. */
  readonly proxy: string | undefined;
}

/**
 * Opens a connection that will speak HTTP/1.1.
 *
 * @throws {Error} with the system's code, or in words, when it is not there within ten seconds.
 */
export async function dial({ server, tls: material, proxy }: DialTarget): Promise<tls.TLSSocket> {
  const { host, port } = placeOf(new URL(server));
  const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
  const opened: net.Socket[] = [];
  const deadline = setTimeout(() => reject(new Error("no answer within 10 s")), CONNECT_DEADLINE_MS);
  const keep = <Socket extends net.Socket>(socket: Socket): Socket => {
    opened.push(socket);
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the connection was closed")));
    return socket;
  };
  const open = async () => {
    const through =
      proxy === undefined ? undefined : await connectThrough(new URL(proxy), material.ca, host, port, keep);
    const serverName = material.serverName ?? (net.isIP(host) === 0 ? host : undefined);
    const socket = keep(
      tls.connect({
        // By the host the certificate is judged where it is an address, behind a proxy too.
        host,
        ...(through === undefined ? { port } : { socket: through }),
        ca: material.ca,
        ...(material.cert === undefined ? {} : { cert: material.cert, key: material.key }),
        ...(serverName === undefined ? {} : { servername: serverName }),
        ALPNProtocols: ["http/1.1"],
      }),
    );
    socket.once("secureConnect", () => resolve(socket));
  };
  open().catch(reject);
  try {
    return await promise;
  } catch (error) {
    for (const socket of opened) socket.destroy();
    throw error;
  } finally {
    clearTimeout(deadline);
  }
}

/** A CONNECT tunnel through an HTTP proxy. */
async function connectThrough(
  proxy: URL,
  clusterCa: string,
  host: string,
  port: number,
  keep: <Socket extends net.Socket>(socket: Socket) => Socket,
): Promise<net.Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<net.Socket>();
  const target = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const place = placeOf(proxy);
  const isTls = proxy.protocol === "https:";
  const serverName = net.isIP(place.host) === 0 ? { servername: place.host } : {};
  // The runtime's fetch trusts the cluster's CA for the proxy too.
  const ca = isTls ? [...tls.rootCertificates, clusterCa] : [];
  const socket = keep(isTls ? tls.connect({ ...place, ...serverName, ca }) : net.connect(place));
  const credentials =
    proxy.username === ""
      ? ""
      : `Proxy-Authorization: Basic ${Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString("base64")}\r\n`;
  socket.once(isTls ? "secureConnect" : "connect", () =>
    socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${credentials}\r\n`),
  );
  let head = "";
  const onData = (chunk: Buffer) => {
    head += chunk.toString("latin1");
    const isWhole = head.includes("\r\n\r\n");
    if (!isWhole && head.length < MAX_PROXY_HEAD_BYTES) return;
    socket.off("data", onData);
    socket.pause();
    if (isWhole && /^HTTP\/1\.[01] 2\d\d/.test(head)) resolve(socket);
    else reject(new Error("the HTTP proxy refused the connection"));
  };
  socket.on("data", onData);
  return promise;
}
