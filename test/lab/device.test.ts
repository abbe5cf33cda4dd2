/**
 * A device's life, on a machine that really boots: flashed, told where to join
 * by a file on its boot partition, a node with pods, and its power goes, its
 * disk losing or tearing what was not flushed. Steps of one story, in order.
 *
 * Pods and power are for --long, a hundred cuts or HOLDFAST_LAB_ROUNDS of them:
 * a round takes minutes where the machine is emulated. HOLDFAST_LAB_SEED repeats
 * a run's draws. While the device is off or cut a ConfigMap goes on changing, so
 * that there is always something that had not been flushed.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { joinFile, startDeviceWorld, TOKEN_SECRET } from "./device-cluster.ts";
import { DeviceDisk, draws } from "./device-disk.ts";
import { makeTestImage, whyWithoutDevice } from "./device-image.ts";
import { connectDevice, deviceAddress, DeviceVm } from "./device-vm.ts";
import { isLong, measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";
import { container, NAMESPACE, pod } from "./workload.ts";
import { NODE_NAME, type World } from "./world.ts";

const why = whyWithoutPodNetwork ?? whyWithoutDevice();
const ROUNDS = isLong ? Number(process.env["HOLDFAST_LAB_ROUNDS"] ?? 100) : 0;
const SEED = Number(process.env["HOLDFAST_LAB_SEED"] ?? Date.now() % 1_000_000);
const PODS = ["one", "two", "three"];
/** An emulated machine on a loaded one is slow; nothing is judged by its speed. */
const PATIENCE_MS = Number(process.env["HOLDFAST_LAB_PATIENCE_S"] ?? 300) * 1_000;

describe.skipIf(why !== undefined)(titled("a device", why), () => {
  let world: World;
  let disk: DeviceDisk;
  let device: DeviceVm;
  /** What each value of the ConfigMap was called by the API server. */
  const written = new Map<number, string>();
  const draw = draws(SEED);
  beforeAll(async () => {
    world = await startDeviceWorld();
    connectDevice(world);
    const startedMs = performance.now();
    const { path, took } = await makeTestImage(world.directory);
    if (took.length > 0)
      measured(
        "device image from a warm package cache",
        `${seconds(performance.now() - startedMs)} (${took.join(", ")})`,
      );
    disk = new DeviceDisk(path);
    device = DeviceVm.boot(world, { arch: "amd64", disk });
  }, 600_000);
  afterAll(async () => {
    await device?.[Symbol.asyncDispose]();
    disk?.[Symbol.dispose]();
    await world?.[Symbol.asyncDispose]();
  }, 60_000);

  test(
    "boots by its firmware and says on its console what it waits for",
    async () => {
      await device.shows("holdfast: waiting for holdfast-join.yaml: none in /boot, /boot/efi", PATIENCE_MS);
      await device.isUp(PATIENCE_MS);
      measured("device: power on to a shell", seconds(performance.now() - device.bootedMs));
      expect(await device.mustRun("systemctl --failed --no-legend; cat /etc/machine-id")).toMatch(/^[0-9a-f]{32}$/);
      expect(await device.mustRun("cat /proc/cmdline")).toContain("root=PARTLABEL=root-a");
      const network = `[Match]\nType=ether\nName=en*\n[Network]\nAddress=${deviceAddress(world)}/24\nGateway=${world.network.cloudAddress}\n`;
      await putFile("/etc/systemd/network/20-lab.network", network);
      await device.mustRun("networkctl reload");
    },
    PATIENCE_MS * 2,
  );

  test(
    "a wrong file is named on the console, without a word of it",
    async () => {
      await drop(`apiServer: ${world.network.cloudAddress}:6443\ntoken: abcdef.${TOKEN_SECRET}\ncaCertHash: x\n`);
      await device.shows('unknown field "caCertHash"', PATIENCE_MS);
      expect(await device.console()).not.toContain(TOKEN_SECRET);
    },
    PATIENCE_MS,
  );

  test(
    "the right one, as a laptop writes it, makes it a node; nothing of the token is left on the disk",
    async () => {
      await drop(`\ufeff${joinFile(world, NODE_NAME).replaceAll("\n", "\r\n")}`, "Holdfast-Join.yaml.txt");
      await device.shows(`as node ${NODE_NAME}`, PATIENCE_MS);
      await nodeIsReady();
      measured(
        "device: power on to Ready, a wrong file and a right one between",
        seconds(performance.now() - device.bootedMs),
      );
      await until(
        "first boot is done",
        async () => await device.mustRun("ls /var/lib/holdfast/first-boot.done"),
        PATIENCE_MS,
      );
      expect(await device.mustRun("ls -A /boot/efi; findmnt -n -o OPTIONS /boot/efi")).not.toMatch(
        /holdfast-join|^rw/im,
      );
      await device.mustRun("sync");
      expect(disk.contains(TOKEN_SECRET)).toBe(false);
      expect(await world.inCloud(["get", "node", NODE_NAME, "-o", "jsonpath={.metadata.labels.site}"])).toBe("north");
    },
    PATIENCE_MS * 2,
  );

  test.skipIf(!isLong)(
    "carries pods (--long)",
    async () => {
      await world.createNamespace(NAMESPACE);
      await writeMap(0);
      const mounted = { name: "map", configMap: { name: "churn" } };
      for (const name of PODS)
        await world.apply(
          pod(name, {
            nodeName: NODE_NAME,
            volumes: [mounted],
            containers: [container(["sleep", "100000000"], { volumeMounts: [{ name: "map", mountPath: "/map" }] })],
          }),
        );
      await until("the pods are Ready", async () => (await readyPods()) === PODS.length, PATIENCE_MS);
      await until("every pod has its containers", async () => (await tasks()) === PODS.length * 2, PATIENCE_MS);
    },
    PATIENCE_MS,
  );

  for (let round = 1; round <= ROUNDS; round += 1)
    test(`power cut ${round} of ${ROUNDS} (seed ${SEED})`, async () => await powerCut(round), PATIENCE_MS * 3);

  /** One cut of link and power at moments drawn, a boot without the link, the judgement, and the return. */
  async function powerCut(round: number): Promise<void> {
    const before = await identity();
    const floor = await mapInCopy();
    let last = Math.max(...written.keys());
    const darkAfter = Math.floor(draw() * 12);
    const isCutFirst = draw() < 0.5;
    for (let change = 0; change <= darkAfter; change += 1) {
      await writeMap((last += 1));
      if (isCutFirst && change === Math.floor(darkAfter / 2)) world.cut();
    }
    // The other slot at every second boot: copies belong to both.
    if (round % 2 === 0) await switchSlot(round % 4 === 2 ? "b" : "a");
    const kind = draw() < 0.5 ? ("forgets" as const) : ("tears" as const);
    const bytes = disk.bytesWritten;
    const lost = await device.cutPower(kind, draw);
    world.cut();
    await writeMap(last + 1);

    device = DeviceVm.boot(world, { arch: "amd64", disk, clock: "2000-01-01T00:00:00" });
    await device.isUp(PATIENCE_MS);
    const readyMs = await whenReady();
    await until(
      "all containers run again, without the cluster",
      async () => (await tasks()) === PODS.length * 2,
      PATIENCE_MS,
    );
    const lastMs = performance.now();
    measured(
      `power cut ${round}, ${kind} ${lost} blocks`,
      `power to READY ${seconds(readyMs - device.bootedMs)}, READY to last container ${seconds(lastMs - readyMs)}, ${(bytes / 2 ** 20).toFixed(0)} MiB written so far`,
    );
    expect(await device.mustRun("cat /proc/cmdline")).toContain(`root-${round % 4 >= 2 ? "b" : "a"} `);
    expect(await identity()).toEqual(before);
    const value = await mapInCopy();
    expect(value).toBeGreaterThanOrEqual(floor);
    expect(value).toBeLessThanOrEqual(last);
    await judge();
    world.heal();
    await nodeIsReady();
    await until("the copy is the cluster's again", async () => (await mapInCopy()) === last + 1, PATIENCE_MS);
    expect(await tasks()).toBe(PODS.length * 2);
  }

  /** What must be so after every cut. */
  async function judge(): Promise<void> {
    const verified = await device.run("holdfast cache verify");
    expect({ code: verified.code, output: verified.output }).toMatchObject({ code: 0 });
    const stranger =
      "curl -s -o /dev/null -w '%{http_code}' --cacert /var/lib/holdfast/pki/local-ca.crt https://127.0.0.1:10268";
    expect(await device.mustRun(`${stranger}/api/v1/pods`)).toBe("401");
    expect(JSON.parse(await device.mustRun("cat /var/lib/holdfast/adopt.json"))).toMatchObject({ phase: "adopted" });
    const pair = await device.mustRun("cat /var/lib/kubelet/pki/kubelet-client-current.pem");
    expect(new X509Certificate(pair).checkPrivateKey(createPrivateKey(pair))).toBe(true);
    // A clock that forgot the time has gone on from where this device last wrote.
    expect(Math.abs(Number(await device.mustRun("date +%s")) - Date.now() / 1_000)).toBeLessThan(900);
    expect(await device.mustRun("systemctl --failed --no-legend")).toBe("");
  }

  /** What makes this device the one it is. */
  async function identity(): Promise<string> {
    const files = "/etc/machine-id /var/lib/holdfast/pki/local-ca.crt /var/lib/holdfast/pki/local-ca.key";
    return await device.mustRun(`sha256sum ${files} && readlink /var/lib/kubelet/pki/kubelet-client-current.pem`);
  }

  /** The ConfigMap's value as the node's own copy has it; with it the name that the API server gave to that value. */
  async function mapInCopy(): Promise<number> {
    const line = `holdfast get configmap churn -n ${NAMESPACE} -o json`;
    const { data, metadata } = JSON.parse(await device.mustRun(line)) as {
      data: { value: string };
      metadata: { resourceVersion: string };
    };
    const value = Number(data.value);
    expect(metadata.resourceVersion).toBe(written.get(value)!);
    return value;
  }

  async function writeMap(value: number): Promise<void> {
    const metadata = { name: "churn", namespace: NAMESPACE };
    await world.apply({ apiVersion: "v1", kind: "ConfigMap", metadata, data: { value: `${value}` } });
    const path = "jsonpath={.metadata.resourceVersion}";
    written.set(value, await world.inCloud(["get", "configmap", "churn", "-n", NAMESPACE, "-o", path]));
  }

  /** Containers and sandboxes that run. */
  async function tasks(): Promise<number> {
    return Number(await device.mustRun("ctr -n k8s.io tasks ls | grep -c RUNNING || true"));
  }

  async function whenReady(): Promise<number> {
    const line = "curl -fsS http://127.0.0.1:10267/readyz";
    await until("Holdfast is ready", async () => (await device.run(line)).code === 0, PATIENCE_MS);
    return performance.now();
  }

  async function nodeIsReady(): Promise<void> {
    const path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}';
    await until(
      "the node is Ready",
      async () => (await world.inCloud(["get", "node", NODE_NAME, "-o", path])) === "True",
      PATIENCE_MS,
    );
  }

  async function readyPods(): Promise<number> {
    const path = 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}';
    const said = await world.inCloud(["get", "pods", "-n", NAMESPACE, "-o", path]);
    return said.split(" ").filter((word) => word === "True").length;
  }

  async function putFile(path: string, text: string): Promise<void> {
    await device.mustRun(`echo ${Buffer.from(text).toString("base64")} | base64 -d > ${path}`);
  }

  /** A file on the boot partition, as if the card had been in a laptop. */
  async function drop(text: string, name = "holdfast-join.yaml"): Promise<void> {
    await device.mustRun("mount -o remount,rw /boot/efi; rm -f /boot/efi/*oldfast-*oin*");
    await putFile(`/boot/efi/${name}`, text);
    await device.mustRun("sync; mount -o remount,ro /boot/efi");
  }

  async function switchSlot(slot: "a" | "b"): Promise<void> {
    await device.mustRun(
      `mount -o remount,rw /boot/efi && sed -i 's/^default .*/default slot-${slot}.conf/' /boot/efi/loader/loader.conf && sync && mount -o remount,ro /boot/efi`,
    );
  }
});
