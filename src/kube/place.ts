/**
 * Where the API server can dial this node's kubelet.
 *
 * A node behind NAT has addresses that nobody in the cluster reaches. A
 * gateway lends it a place: addresses and a port that end in a tunnel to
 * kubelet's own. While there is one, the node object that the API server holds
 * says the place; every client of this node reads what kubelet wrote.
 *
 * No place is no tunnel: the true addresses stand.
 */

import { isIP } from "node:net";

/** An entry of `status.addresses`. */
export interface NodeAddress {
  /** As Kubernetes names them: Hostname, InternalDNS, InternalIP, ExternalDNS, ExternalIP. */
  readonly type: string;
  readonly address: string;
}

/** Where kubelet is dialled, as the API server sees it. */
export interface Place {
  /** In the order in which they are to be tried; at least one. */
  readonly addresses: readonly NodeAddress[];
  readonly port: number;
}

/** Whoever knows the place now: the tunnel's agent. */
export interface PlaceSource {
  /** The place that leads here at this moment; undefined: the true addresses are to be shown. */
  current(): Place | undefined;
  /** Calls whenever `current` answers something else; @returns what ends that. */
  onChange(listener: () => void): () => void;
}

/** Whether two places are the same one. */
export function isSamePlace(one: Place | undefined, other: Place | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return (
    one.port === other.port &&
    one.addresses.length === other.addresses.length &&
    one.addresses.every(({ type, address }, at) => {
      const twin = other.addresses[at]!;
      return twin.type === type && twin.address === address;
    })
  );
}

const TYPES = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"] as const;

/**
 * The place that these hosts are, under every type that an API server may
 * prefer: the default asks for Hostname first, and takes what stands there
 * whether or not it is a name.
 *
 * @param hosts addresses or DNS names, the first one to be tried first; a name stands under no type of addresses.
 */
export function placeAt(hosts: readonly string[], port: number): Place {
  const isAddress = (host: string) => isIP(host) !== 0;
  const addresses = TYPES.flatMap((type) =>
    hosts.filter((host) => isAddress(host) || !type.endsWith("IP")).map((address) => ({ type, address })),
  );
  return { addresses, port };
}
