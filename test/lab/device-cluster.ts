/**
 * A cluster for devices, and the file by which a device joins it.
 */
import { apiServerOf, caPin, startJoinableWorld } from "./kubeadm-cluster.ts";
import type { World } from "./world.ts";

/** The secret half of the token: what must not be left on a disk. */
export const TOKEN_SECRET = "0123456789fedcba";
const TOKEN = `abcdef.${TOKEN_SECRET}`;

/** A control plane that admits by token. */
export async function startDeviceWorld(): Promise<World> {
  return startJoinableWorld({
    token: TOKEN,
    kubelet: {
      cgroupDriver: "systemd",
      evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi" },
    },
  });
}

/** The text of holdfast-join.yaml for this cluster. */
export function joinFile(world: World, nodeName: string): string {
  return [
    `apiServer: ${apiServerOf(world)}`,
    `token: ${TOKEN}`,
    `caCertHashes: ["${caPin(world)}"]`,
    `nodeName: ${nodeName}`,
    "labels: {site: north}",
    "pool: north",
    "",
  ].join("\n");
}
