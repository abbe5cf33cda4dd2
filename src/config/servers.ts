/**
 * Which API servers are asked, and through which proxy.
 */

import { isSameAddress, type ListenAddress } from "./address.ts";
import { ConfigError } from "./config-error.ts";

/** The kubeconfig's server, then others. @throws {ConfigError} on what is none, or is Holdfast itself. */
export function serversOf(first: string, more: readonly string[], listen: readonly ListenAddress[]): string[] {
  const servers = [
    ...new Set([first, ...more.map((server, index) => checkedServer(`servers[${index}]`, server.trim()))]),
  ];
  for (const server of servers) {
    const { hostname, port } = new URL(server);
    const host = hostname.replace(/^\[|\]$/g, "");
    const isOwn = listen.some((address) =>
      isSameAddress(address, {
        host: host === "localhost" ? address.host : host,
        port: port === "" ? 443 : Number(port),
      }),
    );
    if (isOwn)
      throw new ConfigError(
        `Cannot use API server "${server}": it is Holdfast's own listener, and every request would come back for ever; give a kubeconfig that names the API server itself`,
      );
  }
  return servers;
}

/** Judges the proxies of the servers. @throws {ConfigError} without the proxy's URL, which may hold a password. */
export function checkProxies(servers: readonly string[], proxyFor: (server: string) => string | undefined): void {
  for (const server of servers) {
    const proxy = proxyFor(server);
    if (proxy === undefined) continue;
    const scheme = URL.canParse(proxy) ? new URL(proxy).protocol : "no URL";
    if (scheme !== "http:" && scheme !== "https:")
      throw new ConfigError(
        `Cannot use HTTPS_PROXY for API server "${server}": expected http://HOST:PORT or https://HOST:PORT, found ${scheme}; or name the server in NO_PROXY`,
      );
  }
}

function checkedServer(field: string, server: string): string {
  const url = URL.canParse(server) ? new URL(server) : undefined;
  const isFit =
    url?.protocol === "https:" &&
    url.pathname === "/" &&
    url.search === "" &&
    url.username === "" &&
    url.password === "";
  if (!isFit) throw new ConfigError(`Cannot use API server (${field}): expected https://HOST:PORT alone`);
  return url.origin;
}
