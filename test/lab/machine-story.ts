/**
 * What the stories of a machine with systemd share: how the cloud sees it, and
 * a certificate of its node that ends when a story wants it to.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Machine } from "./machine.ts";
import { runProcess, until } from "./processes.ts";
import { NODE_NAME, type World } from "./world.ts";
import { WrongClock } from "./wrong-clock.ts";

/** kube-proxy and two of CoreDNS, as kubeadm brings them. */
export const ADD_ONS = 3;
/** Kubelet's pair, in the machine. */
export const CURRENT_PAIR = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/** Waits until the node and so many pods are ready in the cloud's eyes. */
export async function readyInCloud(world: World, podCount: number): Promise<void> {
  const ready = '{.status.conditions[?(@.type=="Ready")].status}';
  await until(
    "the node and its pods are ready in the cloud",
    async () => {
      const node = await world.inCloud(["get", "node", NODE_NAME, "-o", `jsonpath=${ready}`]);
      const pods = await world.inCloud(["get", "pods", "-A", "-o", `jsonpath={range .items[*]}${ready} {end}`]);
      return node === "True" && pods.split("True").length - 1 === podCount;
    },
    120_000,
  );
}

/** Waits until kubelet's lease is renewed in the cloud after this moment. @returns how long that took, in milliseconds. */
export async function heard(world: World, sinceMs: number): Promise<number> {
  const lease = ["get", "lease", NODE_NAME, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"];
  await until("kubelet's lease is renewed", async () => Date.parse(await world.inCloud(lease)) > sinceMs, 60_000);
  return Date.now() - sinceMs;
}

/** Puts a pair of the node's in the place of kubelet's, of a year of which so much is left; kubelet reads it at its start. */
export async function putEndingPair(world: World, machine: Machine, leftMs: number): Promise<void> {
  const pair = await endingPair(world, leftMs);
  await machine.mustRun(`cat > /var/lib/kubelet/pki/kubelet-client-old.pem << END\n${pair}END
    chmod 600 /var/lib/kubelet/pki/kubelet-client-old.pem; ln -sf kubelet-client-old.pem ${CURRENT_PAIR}`);
}

async function endingPair(world: World, leftMs: number): Promise<string> {
  const clock = new WrongClock(world.directory);
  clock.set(Date.now() - 365 * 86_400_000 + leftMs);
  const file = (name: string) => join(world.directory, `old.${name}`);
  const mint = async (...args: string[]) => {
    const done = await runProcess(["openssl", ...args], { env: clock.env });
    if (done.exitCode !== 0) throw new Error(`Cannot run openssl ${args[0]}: ${done.stderr}`);
  };
  const subject = `/O=system:nodes/CN=system:node:${NODE_NAME}`;
  await mint("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", file("key"));
  await mint("req", "-new", "-key", file("key"), "-subj", subject, "-out", file("csr"));
  writeFileSync(file("ext"), "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n");
  const signer = ["-CA", world.pki.ca, "-CAkey", world.pki.key("ca"), "-CAcreateserial"];
  const dates = ["-days", "365", "-extfile", file("ext")];
  await mint("x509", "-req", "-in", file("csr"), ...signer, ...dates, "-out", file("crt"));
  return readFileSync(file("crt"), "utf8") + readFileSync(file("key"), "utf8");
}
