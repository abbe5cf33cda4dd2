/**
 * Which HTTP proxy, if any, leads to an API server.
 *
 * The kubeconfig's proxy-url wins; else HTTPS_PROXY, less what NO_PROXY names,
 * by the rules of Go's net/http, which every other Kubernetes program follows.
 */

import { isIP, BlockList } from "node:net";

/** @returns for a server's URL the proxy's URL, or undefined to go directly. */
export function proxyForServer(
  proxyUrl: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): (server: string) => string | undefined {
  if (proxyUrl !== undefined && proxyUrl !== "") return () => proxyUrl;
  const fromEnv = env["HTTPS_PROXY"] ?? env["https_proxy"] ?? "";
  if (fromEnv === "") return () => undefined;
  const proxy = fromEnv.includes("://") ? fromEnv : `http://${fromEnv}`;
  const exceptions = (env["NO_PROXY"] ?? env["no_proxy"] ?? "")
    .split(",")
    .map((entry) => entry.trim().toLowerCase())
    .filter((entry) => entry !== "");
  return (server) => (isExcepted(new URL(server), exceptions) ? undefined : proxy);
}

function isExcepted(url: URL, exceptions: readonly string[]): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, "").toLowerCase();
  const port = url.port === "" ? "443" : url.port;
  if (host === "localhost" || host.startsWith("127.") || host === "::1") return true;
  return exceptions.some((entry) => {
    if (entry === "*") return true;
    const [, address, bits] = /^(.+)\/(\d{1,3})$/.exec(entry) ?? [];
    if (address !== undefined) return isInside(host, address, Number(bits));
    const [, name = entry, entryPort] = isIP(entry) === 0 ? (/^(.*?)(?::(\d+))?$/.exec(entry) ?? []) : [];
    if (entryPort !== undefined && entryPort !== port) return false;
    const suffix = name.replace(/^\*/, "");
    return suffix.startsWith(".")
      ? host.endsWith(suffix)
      : host === suffix || (isIP(suffix) === 0 && host.endsWith(`.${suffix}`));
  });
}

function isInside(host: string, address: string, bits: number): boolean {
  const family = isIP(address) === 6 ? "ipv6" : "ipv4";
  if (isIP(host) === 0 || isIP(address) === 0 || (isIP(host) === 6) !== (family === "ipv6")) return false;
  try {
    const list = new BlockList();
    list.addSubnet(address, bits, family);
    return list.check(host, family);
  } catch {
    return false;
  }
}
