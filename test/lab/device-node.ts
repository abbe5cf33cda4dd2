/**
 * A device as a node of the lab's cluster: flashed, booted, with pods, and what
 * is asked of it before and after its power goes.
 *
 * A ConfigMap that the pods mount goes on changing, so that there is always
 * something that had not been flushed; what the API server called each of its
 * values is written down, and nothing else may ever be read.
 */
import { join } from "node:path";
import type { Architecture } from "../../scripts/images/debian.ts";
import { SLOT_SCRIPT } from "../../scripts/images/rootfs.ts";
import { DeviceDisk } from "./device-disk.ts";
import { makeTestImage } from "./device-image.ts";
import { dataPartition, identityIn, callersIn, remainsOf, type Expected, type Remains } from "./device-judge.ts";
import { type BootOptions, connectDevice, deviceAddress, DeviceVm, kernelOf } from "./device-vm.ts";
import { startDeviceWorld } from "./device-cluster.ts";
import { measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { container, NAMESPACE, pod } from "./workload.ts";
import { NODE_NAME, type World } from "./world.ts";

/** An emulated machine on a loaded one is slow; nothing is judged by its speed. HOLDFAST_LAB_PATIENCE_S waits longer. */
export const PATIENCE_MS = Number(process.env["HOLDFAST_LAB_PATIENCE_S"] ?? 300) * 1_000;

const PODS = ["one", "two", "three"];
const CONFIG_MAP = "churn";
const PROXY = "https://127.0.0.1:10268";
const CONFIG_MAP_PATH = `/api/v1/namespaces/${NAMESPACE}/configmaps/${CONFIG_MAP}`;

/** Somebody at the device with a token: what it is answered for the ConfigMap now. */
export interface Asker {
  readonly token: string;
}

export class DeviceNode implements AsyncDisposable {
  vm: DeviceVm;
  /** What each value of the ConfigMap was called by the API server. */
  readonly versions = new Map<number, string>();
  /** May read the ConfigMap, and has; and one who may not. */
  reader: Asker = { token: "" };
  stranger: Asker = { token: "" };
  private expected: Expected | undefined;
  private remainsCount = 0;
  private readonly partition: string;

  private constructor(
    readonly world: World,
    readonly arch: Architecture,
    readonly disk: DeviceDisk,
    private readonly image: string,
  ) {
    this.partition = join(world.directory, "data.ext4");
    this.vm = DeviceVm.boot(world, { arch, disk });
  }

  /** Flashes a device and gives it power for the first time. */
  static async start(arch: Architecture): Promise<DeviceNode> {
    const world = await startDeviceWorld();
    try {
      connectDevice(world);
      const startedMs = performance.now();
      const { path, took } = await makeTestImage(world.directory, arch);
      if (took.length > 0)
        measured(
          `device image for ${arch} from a warm package cache`,
          `${seconds(performance.now() - startedMs)} (${took.join(", ")})`,
        );
      const node = new DeviceNode(world, arch, new DeviceDisk(path), path);
      dataPartition(path, node.partition, node.disk.sizeBytes);
      return node;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Power again, past the firmware unless told otherwise. */
  boot(slot: "a" | "b", options: Pick<BootOptions, "clock" | "cpu"> & { readonly byFirmware?: boolean } = {}): void {
    const { byFirmware = false, ...more } = options;
    const kernel = byFirmware ? {} : { kernel: kernelOf(this.image, slot, this.world.directory) };
    this.vm = DeviceVm.boot(this.world, { arch: this.arch, disk: this.disk, ...kernel, ...more });
  }

  /** An address by hand: the lab has no DHCP. */
  async plugIn(): Promise<void> {
    const { world } = this;
    const network = `[Match]\nType=ether\nName=en*\n[Network]\nAddress=${deviceAddress(world)}/24\nGateway=${world.network.cloudAddress}\n`;
    await this.putFile("/etc/systemd/network/20-lab.network", network);
    await this.vm.mustRun("networkctl reload");
  }

  /** A file on the boot partition, as if the card had been in a laptop. */
  async drop(text: string, name = "holdfast-join.yaml"): Promise<void> {
    await this.vm.mustRun("mount -o remount,rw /boot/efi; rm -f /boot/efi/*oldfast-*oin*");
    await this.putFile(`/boot/efi/${name}`, text);
    await this.vm.mustRun("sync; mount -o remount,ro /boot/efi");
  }

  /** Turns the loader's default. */
  async switchSlot(slot: "a" | "b"): Promise<void> {
    await this.vm.mustRun(`${SLOT_SCRIPT} set-primary ${slot}`);
  }

  /** Three pods with the ConfigMap, and two callers. */
  async carryPods(): Promise<void> {
    const { world } = this;
    await world.createNamespace(NAMESPACE);
    await this.writeMap(0);
    const mounted = { name: "map", configMap: { name: CONFIG_MAP } };
    for (const name of PODS)
      await world.apply(
        pod(name, {
          nodeName: NODE_NAME,
          volumes: [mounted],
          containers: [container(["sleep", "100000000"], { volumeMounts: [{ name: "map", mountPath: "/map" }] })],
        }),
      );
    await until("the pods are Ready", async () => (await this.readyPods()) === PODS.length, PATIENCE_MS);
    this.reader = { token: await world.tokenFor("reader", ["get"], ["configmaps"]) };
    this.stranger = { token: (await world.inCloud(["create", "token", "default", "-n", NAMESPACE])).trim() };
    await until("the reader is answered", async () => (await this.codeFor(this.reader)) === "200", PATIENCE_MS);
    if ((await this.codeFor(this.stranger)) !== "403") throw new Error("the stranger is not refused while online");
  }

  /** The HTTP status that somebody gets for the ConfigMap; without a token, anybody. */
  async codeFor(asker?: Asker): Promise<string> {
    const header = asker === undefined ? "" : `-H 'Authorization: Bearer ${asker.token}'`;
    return await this.vm.mustRun(
      `curl -s -o /dev/null -w '%{http_code}' ${header} --cacert /var/lib/holdfast/pki/local-ca.crt ${PROXY}${CONFIG_MAP_PATH}`,
    );
  }

  get lastWritten(): number {
    return Math.max(...this.versions.keys());
  }

  /** Changes the ConfigMap in the cloud. */
  async writeMap(value: number): Promise<void> {
    const metadata = { name: CONFIG_MAP, namespace: NAMESPACE };
    const map = JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata, data: { value: `${value}` } });
    const path = "jsonpath={.metadata.resourceVersion}";
    this.versions.set(value, await this.world.inCloud(["apply", "--server-side", "-f", "-", "-o", path], map));
  }

  /** The ConfigMap's value as the running daemon has it. @throws {Error} for a value under a name that the API server never gave it. */
  async mapInCopy(): Promise<number> {
    const said = await this.vm.mustRun(`holdfast get configmap ${CONFIG_MAP} -n ${NAMESPACE} -o json 2>/dev/null`);
    const { data, metadata } = JSON.parse(said) as {
      data: { value: string };
      metadata: { resourceVersion: string };
    };
    const value = Number(data.value);
    if (this.versions.get(value) !== metadata.resourceVersion)
      throw new Error(`P1: ${CONFIG_MAP} = ${value} at ${metadata.resourceVersion}, which nobody ever said`);
    return value;
  }

  /** Brings everything onto the disk, and holds what comes after against it. */
  async settle(): Promise<Expected> {
    const floor = await this.mapInCopy();
    await this.vm.mustRun("holdfast cache verify; sync");
    const remains = await this.remains(this.disk.afterCut("forgets", () => 0));
    if ("damage" in remains) throw new Error(remains.damage);
    const identity = identityIn(remains.folder);
    if (identity === undefined) throw new Error("the device has no identity");
    const callers = await callersIn(remains.folder);
    this.expected = { identity, floor, callers, versions: this.versions, configMap: `${NAMESPACE}/${CONFIG_MAP}` };
    return this.expected;
  }

  /** What the next cut is judged by. @param floor a value that was read from the disk since. */
  expect(floor?: number): Expected {
    if (this.expected === undefined) throw new Error("nothing was settled yet");
    if (floor !== undefined) this.expected = { ...this.expected, floor };
    return this.expected;
  }

  /** What the data partition holds with these blocks over the image. */
  async remains(blocks: ReadonlyMap<number, Buffer>): Promise<Remains> {
    return await remainsOf(this.partition, blocks, join(this.world.directory, `remains-${(this.remainsCount += 1)}`));
  }

  /** Waits for READY. @returns seconds since the kernel began, and how many of them were ours. */
  async ready(): Promise<{ readonly atS: number; readonly oursS: number }> {
    await this.vm.mustRun(
      "until curl -fsS http://127.0.0.1:10267/readyz >/dev/null 2>&1; do sleep 1; done",
      PATIENCE_MS,
    );
    const shown = await this.vm.mustRun(
      "systemctl show holdfast -p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic --value",
    );
    const [startUs = 0, readyUs = 0] = shown.split(/\s+/).map(Number);
    return { atS: readyUs / 1e6, oursS: (readyUs - startUs) / 1e6 };
  }

  /** Waits until every pod runs again. @returns seconds since the kernel began. */
  async allContainers(): Promise<number> {
    // A pod's sandbox runs the same program as its container. The lab's shell has the pattern in its own words.
    const pattern = "sleep 10000000[0]";
    await this.vm.mustRun(`until [ "$(pgrep -fc '${pattern}')" = ${PODS.length * 2} ]; do sleep 1; done`, PATIENCE_MS);
    // Field 22 of stat: ticks of a hundredth since the kernel began.
    const starts = await this.vm.mustRun(`for p in $(pgrep -f '${pattern}'); do cut -d' ' -f22 /proc/$p/stat; done`);
    return Math.max(...starts.split(/\s+/).map(Number)) / 100;
  }

  async nodeIsReady(): Promise<void> {
    const path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}';
    await until(
      "the node is Ready",
      async () => (await this.world.inCloud(["get", "node", NODE_NAME, "-o", path])) === "True",
      PATIENCE_MS,
    );
  }

  async putFile(path: string, text: string): Promise<void> {
    await this.vm.mustRun(`echo ${Buffer.from(text).toString("base64")} | base64 -d > ${path}`);
  }

  private async readyPods(): Promise<number> {
    const path = 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}';
    const said = await this.world.inCloud(["get", "pods", "-n", NAMESPACE, "-o", path]);
    return said.split(" ").filter((word) => word === "True").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm[Symbol.asyncDispose]();
    this.disk[Symbol.dispose]();
    await this.world[Symbol.asyncDispose]();
  }
}
