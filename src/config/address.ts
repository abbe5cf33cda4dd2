/**
 * Where local clients may connect: loopback and link-local addresses alone.
 */

import { BlockList, isIP, isIPv6 } from "node:net";
import { hostPortText, parseHostPort, type HostPort } from "../base/address.ts";
import { ConfigError } from "./config-error.ts";

/** One address to listen on; an IPv6 host stands without brackets. Port 0 picks a free one. */
export type ListenAddress = HostPort;

/** Loopback and link-local, both families. */
const LOCAL = new BlockList();
LOCAL.addSubnet("127.0.0.0", 8, "ipv4");
LOCAL.addSubnet("169.254.0.0", 16, "ipv4");
LOCAL.addAddress("::1", "ipv6");
LOCAL.addSubnet("fe80::", 10, "ipv6");
// Ours for pods (machine/pod-way.ts): on the loopback device, and nowhere else in the world.
LOCAL.addSubnet("fd48:6f6c:6466:6173::", 64, "ipv6");

/**
 * An address to listen on.
 *
 * Only loopback and link-local: what answers with a node's credentials has no
 * business on a network.
 *
 * @param isAnywhere any address of this machine's, for what has no such credentials.
 * @throws {ConfigError} naming the field.
 */
export function parseAddress(field: string, text: string, isAnywhere = false): ListenAddress {
  const address = parseHostPort(text);
  if (address === undefined)
    throw new ConfigError(
      `Cannot listen on "${text}" (${field}): expected ADDRESS:PORT, such as 127.0.0.1:10268 or [::1]:10268`,
    );
  const { host } = address;
  if (isIP(host) === 0)
    throw new ConfigError(`Cannot listen on "${text}" (${field}): expected an IP address, not a name`);
  if (!isAnywhere && !LOCAL.check(host.replace(/%.*$/, ""), isIPv6(host) ? "ipv6" : "ipv4"))
    throw new ConfigError(
      `Cannot listen on "${text}" (${field}): only loopback and link-local addresses are allowed, because whoever reaches this port acts near the node's identity`,
    );
  return address;
}

/** The addresses of local clients. @throws {ConfigError} */
export function listenAddresses(texts: readonly string[]): ListenAddress[] {
  if (texts.length === 0)
    throw new ConfigError("Cannot listen nowhere: listen is an empty list; leave it out for 127.0.0.1:10268");
  const addresses = texts.map((text) => parseAddress("listen", text.trim()));
  for (const [index, address] of addresses.entries()) {
    if (addresses.slice(0, index).some((other) => isSameAddress(other, address)))
      throw new ConfigError(`Cannot listen on "${texts[index]}" (listen): it is named twice`);
  }
  return addresses;
}

/** The address of health, which must be no other's. @throws {ConfigError} */
export function healthAddress(text: string, listen: readonly ListenAddress[]): ListenAddress {
  const address = parseAddress("healthListen", text);
  if (listen.some((other) => isSameAddress(other, address)))
    throw new ConfigError(
      `Cannot listen on "${hostPortText(address)}" for health (healthListen): listen names it too; choose another port with --health-listen`,
    );
  return address;
}

/** Whether two would be one; port 0 is always another. */
export function isSameAddress(one: ListenAddress, other: ListenAddress): boolean {
  return one.port !== 0 && one.port === other.port && one.host === other.host;
}
