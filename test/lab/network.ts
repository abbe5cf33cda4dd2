/**
 * The WAN: two network namespaces, cloud and edge, and one cable between them.
 *
 * A link fails in two ways, beside being slow, and programs notice them differently:
 *
 * - `cut`: the cable is pulled. The edge loses its carrier, and the kernel
 *   tells programs within seconds (EHOSTUNREACH).
 * - `drop`: a black hole. Carrier and routes stand, every packet is swallowed
 *   and nobody is told. Each side is given a wrong hardware address for the
 *   other, so that frames arrive and are thrown away; this needs no packet
 *   filter and so no kernel module.
 */
import { record } from "./processes.ts";

const NOBODY = "02:00:00:00:de:ad";

export class Network implements AsyncDisposable {
  readonly cloud: string;
  readonly edge: string;
  readonly cloudAddress: string;
  readonly edgeAddress: string;

  private constructor(suffix: string) {
    // The third octet comes from the suffix too: worlds side by side can be told apart in a capture.
    const octet = 1 + (Number.parseInt(suffix, 16) % 250);
    this.cloud = `hf-${suffix}-cloud`;
    this.edge = `hf-${suffix}-edge`;
    this.cloudAddress = `10.200.${octet}.1`;
    this.edgeAddress = `10.200.${octet}.2`;
  }

  /** An address of the cable's network that nobody has. */
  get unusedAddress(): string {
    return this.edgeAddress.replace(/\d+$/, "77");
  }

  /** Makes both namespaces and the cable. */
  static start(suffix: string): Network {
    const network = new Network(suffix);
    const { cloud, edge, cloudAddress, edgeAddress } = network;
    for (const namespace of [cloud, edge]) {
      record(`namespace ${namespace}`);
      ip("netns", "add", namespace);
      ip("-n", namespace, "link", "set", "lo", "up");
    }
    ip("link", "add", "cloud0", "netns", cloud, "type", "veth", "peer", "name", "edge0", "netns", edge);
    ip("-n", cloud, "addr", "add", `${cloudAddress}/24`, "dev", "cloud0");
    ip("-n", edge, "addr", "add", `${edgeAddress}/24`, "dev", "edge0");
    network.heal();
    return network;
  }

  /** Pulls the cable out of the cloud. */
  cut(): void {
    ip("-n", this.cloud, "link", "set", "cloud0", "down");
  }

  /** Swallows every packet, both ways, without a word. */
  drop(): void {
    ip("-n", this.cloud, "neigh", "replace", this.edgeAddress, "lladdr", NOBODY, "dev", "cloud0", "nud", "permanent");
    ip("-n", this.edge, "neigh", "replace", this.cloudAddress, "lladdr", NOBODY, "dev", "edge0", "nud", "permanent");
  }

  /**
   * Leads all traffic between cloud and edge through two TUN devices, for
   * programs that hold and lose packets on the way; see slow-link.
   */
  detour(device: string): void {
    for (const [namespace, own, peer] of this.ends()) {
      ip("-n", namespace, "tuntap", "add", "dev", device, "mode", "tun");
      ip("-n", namespace, "link", "set", device, "up");
      ip("-n", namespace, "route", "add", `${peer}/32`, "dev", device, "src", own);
    }
  }

  /** Ends the detour. */
  endDetour(device: string): void {
    for (const [namespace] of this.ends()) Bun.spawnSync(["ip", "-n", namespace, "link", "del", device]);
  }

  /** Ends whatever `cut` and `drop` did. */
  heal(): void {
    ip("-n", this.cloud, "link", "set", "cloud0", "up");
    ip("-n", this.edge, "link", "set", "edge0", "up");
    ip("-n", this.edge, "route", "replace", "default", "via", this.cloudAddress);
    for (const [namespace, device, neighbour] of [
      [this.cloud, "cloud0", this.edgeAddress],
      [this.edge, "edge0", this.cloudAddress],
    ] as const) {
      Bun.spawnSync(["ip", "-n", namespace, "neigh", "del", neighbour, "dev", device]);
    }
  }

  /** The command that runs `command` in a namespace; `ip` becomes the program, so its pid is the program's. */
  within(namespace: string, command: readonly string[]): string[] {
    return ["ip", "netns", "exec", namespace, ...command];
  }

  private ends(): [namespace: string, own: string, peer: string][] {
    return [
      [this.cloud, this.cloudAddress, this.edgeAddress],
      [this.edge, this.edgeAddress, this.cloudAddress],
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const namespace of [this.cloud, this.edge]) ip("netns", "del", namespace);
  }
}

function ip(...args: string[]): void {
  const done = Bun.spawnSync(["ip", ...args], { stdout: "ignore", stderr: "pipe" });
  if (!done.success)
    throw new Error(`Cannot shape the lab's network, ip ${args.join(" ")}: ${done.stderr.toString().trim()}`);
}
