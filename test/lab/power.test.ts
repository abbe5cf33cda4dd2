/**
 * Power that really goes, many times: a small emulated machine whose only disk
 * holds Holdfast's state, loses or tears what was not flushed, and is cut off
 * in the middle of writing. `device.test.ts` does the same to a whole node,
 * minutes a time; here a cut takes seconds, and what is judged is the same as
 * far as copies go.
 *
 *   boots without the link  ->  what is served from the disk is old or new
 *   the link comes          ->  the copy catches up, an object changes all the time
 *   the power goes          ->  the disk is judged, and holds no less than before
 *
 * HOLDFAST_LAB_POWER_CUTS, HOLDFAST_LAB_SEED as in `device-story.ts`.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Architecture } from "../../scripts/images/debian.ts";
import { runTool } from "../../scripts/images/tools.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { DeviceDisk, draws } from "./device-disk.ts";
import { callersIn, copiesAmiss, remainsOf, valueIn, type Remains } from "./device-judge.ts";
import { isLong, measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { packRamMachine, ramCommand, whyNoRamMachine, type RamStart } from "./ram-machine.ts";
import { titled } from "./requirements.ts";

const SEED = Number(process.env["HOLDFAST_LAB_SEED"] ?? Date.now() % 1_000_000);
const PATIENCE_MS = Number(process.env["HOLDFAST_LAB_PATIENCE_S"] ?? 300) * 1_000;
const WANTED = process.env["HOLDFAST_LAB_POWER_CUTS"];
const CONFIG_MAP = "shop/churn";
/** The host as the emulator's own network shows it. */
const HOST = "10.0.2.2";
const CABLE = ["-netdev", "user,id=cable,net=10.0.2.0/24", "-device", "virtio-net-pci,netdev=cable,romfile="];

powerStory("amd64", "max", Number(WANTED ?? (isLong ? 100 : 3)), whyNoRamMachine("amd64"));
powerStory("arm64", "cortex-a72", Number(WANTED ?? 10), isLong ? whyNoRamMachine("arm64") : "takes --long");

function powerStory(arch: Architecture, cpu: string, cuts: number, why: string | undefined): void {
  describe.skipIf(why !== undefined)(titled(`power that goes on ${arch}`, why), () => {
    const draw = draws(SEED);
    const versions = new Map<number, string>();
    let folder: string;
    let apiServer: ApiServer;
    let disk: DeviceDisk;
    let packed: Pick<RamStart, "arch" | "kernel" | "initrd">;
    let callers: Set<string> | undefined;
    let [floor, last, count] = [0, -1, 0];

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "holdfast-power-"));
      apiServer = await startApiServer({ servingNames: [HOST] });
      write();
      const node = { user: "system:node:gw-1", groups: ["system:nodes"] };
      const pair = apiServer.cluster.clientCertificate(node.user, node.groups);
      const files: Record<string, string> = {
        "etc/kubeconfig": apiServer.kubeconfig({ ...node, keyPair: pair, server: `https://${HOST}:${apiServer.port}` }),
        "etc/pair.pem": pair.cert + pair.key,
        "etc/client.js": CLIENT,
      };
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(join(folder, "add/etc"), { recursive: true });
        writeFileSync(join(folder, "add", name), text);
      }
      packed = await packRamMachine(folder, {
        arch,
        script: SCRIPT,
        files: Object.fromEntries(Object.keys(files).map((name) => [name, join(folder, "add", name)])),
        drivers: ["virtio_pci", "virtio_blk", "virtio_net", "ext4"],
      });
      const image = join(folder, "disk.img");
      writeFileSync(image, "");
      truncateSync(image, 128 * 2 ** 20);
      runTool(["mke2fs", "-q", "-t", "ext4", image]);
      disk = new DeviceDisk(image);
    }, 120_000);
    afterAll(async () => {
      await apiServer?.stop();
      disk?.[Symbol.dispose]();
      rmSync(folder, { recursive: true, force: true });
    });

    /** The object becomes another; what it is called is written down. */
    function write(): void {
      last += 1;
      const metadata = { name: "churn", namespace: "shop" };
      const stored = apiServer.put({ apiVersion: "v1", kind: "ConfigMap", metadata, data: { value: String(last) } });
      // Beside it what makes the log grow until it is brought into the database.
      for (let one = 0; one < 4; one += 1)
        apiServer.put({
          apiVersion: "v1",
          kind: "ConfigMap",
          metadata: { name: `filler-${one}`, namespace: "shop" },
          data: { value: "0", filler: randomBytes(24_000).toString("base64") },
        });
      versions.set(last, (stored["metadata"] as { resourceVersion: string }).resourceVersion);
    }

    for (let cut = 1; cut <= cuts; cut += 1)
      test(`cut ${cut} of ${cuts} (seed ${SEED})`, async () => await oneLife(cut), PATIENCE_MS * 2);

    async function oneLife(cut: number): Promise<void> {
      const startedMs = performance.now();
      const isFirst = floor === 0 && callers === undefined;
      if (!isFirst) await apiServer.cut();
      const socket = join(folder, `disk-${(count += 1)}`);
      disk.listen(socket);
      const drive = `if=none,id=disk,format=raw,cache=writeback,file.driver=nbd,file.server.type=unix,file.server.path=${socket}`;
      const more = ["-drive", drive, "-device", "virtio-blk-pci,drive=disk", ...CABLE];
      const machine = Bun.spawn(ramCommand({ ...packed, cpu, more }), {
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      let said = "";
      void (async () => {
        for await (const bytes of machine.stdout) said += Buffer.from(bytes).toString().replaceAll("\r", "");
      })();
      const shows = (claim: string, pattern: RegExp) =>
        until(
          claim,
          () => {
            if (machine.exitCode !== null) throw new Error(`the machine has ended: ${said.slice(-2_000)}`);
            return pattern.exec(said);
          },
          PATIENCE_MS,
        ).catch((error: Error) => Promise.reject(new Error(`${error.message}\n${said.slice(-2_000)}`)));
      try {
        if (!isFirst) {
          const [, value = "", version = ""] = await shows(
            "the copy is served without the link",
            /served (\d+) (\d+)\n/,
          );
          // P1 and P3 as a client sees them: read off the disk after the cut.
          expect(versions.get(Number(value))).toBe(version);
          expect(Number(value)).toBeGreaterThanOrEqual(floor);
          expect(said).toContain("a stranger is answered 401");
          await apiServer.heal();
        }
        await shows("the copy is the API server's again", new RegExp(`told ${last}\n`));
        const untilMs = performance.now() + 500 + draw() * 4_000;
        while (performance.now() < untilMs) {
          write();
          await Bun.sleep(draw() * 300);
        }
      } finally {
        machine.kill("SIGKILL");
        await machine.exited;
      }
      const kind = draw() < 0.5 ? "forgets" : "tears";
      const lost = disk.losePower(kind, draw);
      await judge();
      measured(
        `${arch} power cut ${cut}, ${kind} ${lost} blocks`,
        `value ${floor} of ${last} on the disk, ${(disk.bytesWritten / 2 ** 20).toFixed(1)} MiB written so far, ${seconds(performance.now() - startedMs)}`,
      );
    }

    async function judge(): Promise<void> {
      const remains: Remains = await remainsOf(
        join(folder, "disk.img"),
        disk.afterCut("forgets", draw),
        join(folder, "remains"),
        0,
        ["/holdfast"],
      );
      if ("damage" in remains) throw new Error(remains.damage);
      // The first life may end before the first list was on the disk; from then on it may not be lost again.
      const kept = await valueIn(remains.folder, CONFIG_MAP);
      if (kept === undefined && callers === undefined) return;
      callers ??= await callersIn(remains.folder);
      expect(await copiesAmiss(remains.folder, { configMap: CONFIG_MAP, versions, floor, callers })).toEqual([]);
      floor = kept!.value;
    }
  });
}

const SCRIPT = `
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -b /dev/vda ] && break; sleep 0.2; done
# What is written goes to the disk's cache within moments, flushed or not: there it can be lost in part.
echo 10 > /proc/sys/vm/dirty_writeback_centisecs
echo 10 > /proc/sys/vm/dirty_expire_centisecs
mkdir -p /data && mount -t ext4 -o commit=1 /dev/vda /data || echo "no disk"
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
cat > /etc/holdfast.yaml <<END
apiVersion: holdfast.dev/v1alpha1
kind: HoldfastConfiguration
END
holdfast run --kubeconfig /etc/kubeconfig --state-dir /data/holdfast --config /etc/holdfast.yaml > /tmp/log 2>&1 &
BUN_BE_BUN=1 holdfast /etc/client.js
cat /tmp/log
poweroff -f`;

/** A client as kubelet is one: reads once, then watches, and says on the console what it was told. */
const CLIENT = `
const fs = require("node:fs"), base = "https://127.0.0.1:10268/api/v1/namespaces/shop/configmaps";
const ca = "/data/holdfast/pki/local-ca.crt", pair = fs.readFileSync("/etc/pair.pem", "utf8");
const ask = (path, own = true) => fetch(base + path, { tls: { ca: fs.readFileSync(ca, "utf8"), ...(own ? { cert: pair, key: pair } : {}) } });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let list;
for (;;) {
  try {
    const answer = await ask("");
    if (answer.status === 200) { list = await answer.json(); break; }
  } catch {}
  await pause(200);
}
const map = list.items.find(({ metadata }) => metadata.name === "churn");
const word = (one) => one.data.value + " " + one.metadata.resourceVersion;
console.log("a stranger is answered " + (await ask("", false)).status);
console.log("served " + word(map));
console.log("told " + map.data.value);
let at = list.metadata.resourceVersion;
for (;;) {
  try {
    const answer = await ask("?watch=true&allowWatchBookmarks=true&resourceVersion=" + at);
    let text = "";
    for await (const bytes of answer.body) {
      text += Buffer.from(bytes).toString();
      for (let end = text.indexOf("\\n"); end >= 0; end = text.indexOf("\\n")) {
        const { type, object } = JSON.parse(text.slice(0, end));
        text = text.slice(end + 1);
        if (type === "ERROR") { at = ""; break; }
        at = object.metadata.resourceVersion;
        if (object.metadata.name === "churn") console.log("told " + object.data.value);
      }
    }
  } catch (error) { console.log("client: " + error.message); }
  await pause(200);
}
`;
