/**
 * A device's life as tests, for any architecture: flashed, told where to join
 * by a file on its boot partition, a node with pods, and its power goes. Steps
 * of one story, in order.
 *
 * Power goes in two ways. While the machine runs, its disk is asked at random
 * moments what it would hold if the power went now, and that is judged: seconds
 * each. And it really goes (SIGKILL of the emulator), the disk losing or tearing
 * what was not flushed, the machine boots again without the link and is judged
 * by what it serves and runs: minutes each where it is emulated.
 *
 * HOLDFAST_LAB_ROUNDS, HOLDFAST_LAB_DISK_CUTS: how many. HOLDFAST_LAB_SEED
 * repeats a run's draws.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { rmSync } from "node:fs";
import type { Architecture } from "../../scripts/images/debian.ts";
import { SLOT_SCRIPT } from "../../scripts/images/rootfs.ts";
import { joinFile, TOKEN_SECRET } from "./device-cluster.ts";
import { draws, type PowerLoss } from "./device-disk.ts";
import { violationsOf, valueIn } from "./device-judge.ts";
import { DeviceNode, PATIENCE_MS } from "./device-node.ts";
import { plantsIn } from "./device-plants.ts";
import { isLong, measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { NODE_NAME } from "./world.ts";

/** How often its power goes; HOLDFAST_LAB_* say otherwise. */
export interface Cuts {
  readonly rounds: number;
  readonly onDisk: number;
}

const SEED = Number(process.env["HOLDFAST_LAB_SEED"] ?? Date.now() % 1_000_000);
/** A round begins with so many seconds of an ordinary life at most. */
const MAX_LIFE_S = 12;
/** How many of the disk's moments are looked at between two floors. */
const SETTLE_EVERY = 10;

/** The story. @param title with the reason where it is skipped. */
export function deviceStory(arch: Architecture, title: string, isSkipped: boolean, cuts: Cuts): void {
  const rounds = Number(process.env["HOLDFAST_LAB_ROUNDS"] ?? cuts.rounds);
  const onDisk = Number(process.env["HOLDFAST_LAB_DISK_CUTS"] ?? cuts.onDisk);
  describe.skipIf(isSkipped)(title, () => {
    let node: DeviceNode;
    const draw = draws(SEED);
    const kind = (): PowerLoss => (draw() < 0.5 ? "forgets" : "tears");
    const told = (what: string, figure: string) => measured(`${arch} device: ${what}`, figure);
    beforeAll(async () => void (node = await DeviceNode.start(arch)), 900_000);
    afterAll(async () => await node?.[Symbol.asyncDispose](), 60_000);

    test(
      "boots by its firmware and says on its console what it waits for",
      async () => {
        const { vm } = node;
        await vm.shows("holdfast: waiting for holdfast-join.yaml: none in /boot, /boot/efi", PATIENCE_MS);
        await vm.isUp(PATIENCE_MS);
        told("power on to a shell", seconds(performance.now() - vm.bootedMs));
        expect(await vm.mustRun("systemctl --failed --no-legend; cat /etc/machine-id")).toMatch(/^[0-9a-f]{32}$/);
        expect(await vm.mustRun("cat /proc/cmdline")).toContain("root=PARTLABEL=root-a");
        await node.plugIn();
      },
      PATIENCE_MS * 2,
    );

    test(
      "a wrong file is named on the console, without a word of it",
      async () => {
        const server = `${node.world.network.cloudAddress}:6443`;
        await node.drop(`apiServer: ${server}\ntoken: abcdef.${TOKEN_SECRET}\ncaCertHash: x\n`);
        await node.vm.shows('unknown field "caCertHash"', PATIENCE_MS);
        expect(await node.vm.console()).not.toContain(TOKEN_SECRET);
      },
      PATIENCE_MS,
    );

    test(
      "the right one, as a laptop writes it, makes it a node; nothing of the token is left on the disk",
      async () => {
        const { disk, vm, world } = node;
        await node.drop(`\ufeff${joinFile(world, NODE_NAME).replaceAll("\n", "\r\n")}`, "Holdfast-Join.yaml.txt");
        await vm.shows(`as node ${NODE_NAME}`, PATIENCE_MS);
        await node.nodeIsReady();
        told("power on to Ready, a wrong file and a right one between", seconds(performance.now() - vm.bootedMs));
        await until(
          "first boot is done",
          async () => await vm.mustRun("ls /var/lib/holdfast/first-boot.done"),
          PATIENCE_MS,
        );
        expect(await vm.mustRun("ls -A /boot/efi; findmnt -n -o OPTIONS /boot/efi")).not.toMatch(/holdfast-join|^rw/im);
        await vm.mustRun("sync");
        expect(disk.contains(TOKEN_SECRET)).toBe(false);
        expect(await world.inCloud(["get", "node", NODE_NAME, "-o", "jsonpath={.metadata.labels.site}"])).toBe("north");
      },
      PATIENCE_MS * 2,
    );

    test.skipIf(rounds + onDisk === 0)(
      "carries pods",
      async () => {
        await node.carryPods();
        await node.allContainers();
        await node.settle();
      },
      PATIENCE_MS * 2,
    );

    test.skipIf(onDisk === 0)(
      `${onDisk} moments at which its power could go (seed ${SEED})`,
      async () => {
        for (let moment = 1; moment <= onDisk; moment += 1) {
          if (moment % SETTLE_EVERY === 0) await node.settle();
          // Every other ten: a daemon that is killed and starts meanwhile.
          if (moment % (2 * SETTLE_EVERY) === 5) await node.vm.mustRun("systemctl kill -s KILL holdfast");
          const writes = 1 + Math.floor(draw() * 3);
          for (let write = 0; write < writes; write += 1) await node.writeMap(node.lastWritten + 1);
          await Bun.sleep(draw() * 1_500);
          const loss = kind();
          const remains = await node.remains(node.disk.afterCut(loss, draw));
          const violations = await violationsOf(remains, node.expect());
          expect({ moment, loss, violations }).toEqual({ moment, loss, violations: [] });
          if ("folder" in remains) rmSync(remains.folder, { recursive: true, force: true });
        }
        told("moments of its disk judged", `${onDisk}, none with a violation`);
      },
      PATIENCE_MS + onDisk * 60_000,
    );

    test.skipIf(onDisk === 0)(
      "the judge sees what is planted: each fault, and a disk that lies about its flushes",
      async () => {
        await node.settle();
        const earlier = await node.remains(node.disk.afterCut("forgets", draw));
        for (let write = 0; write < 3; write += 1) await node.writeMap(node.lastWritten + 1);
        await until("the copy has it", async () => (await node.mapInCopy()) === node.lastWritten, PATIENCE_MS);
        const expected = await node.settle();
        if ("damage" in earlier) throw new Error(earlier.damage);
        for (const { name, plant, sees } of plantsIn(earlier.folder)) {
          const remains = await node.remains(node.disk.afterCut("forgets", draw));
          if ("damage" in remains) throw new Error(remains.damage);
          expect(await violationsOf(remains, expected)).toEqual([]);
          plant(remains.folder);
          expect({ name, seen: (await violationsOf(remains, expected)).join("; ") }).toMatchObject({
            name,
            seen: expect.stringMatching(sees),
          });
          rmSync(remains.folder, { recursive: true, force: true });
        }
        const unknown = { ...expected, callers: new Set([...expected.callers].slice(1)) };
        expect((await violationsOf(earlier, { ...unknown, floor: 0 })).join()).toContain("P4: there is a copy of");
        const lied = await node.remains(node.disk.afterCut("tears", draw, "lying"));
        const seen = await violationsOf(lied, expected);
        told("a lying disk is seen by", seen.join("; ").slice(0, 160));
        expect(seen.length).toBeGreaterThan(0);
      },
      PATIENCE_MS * 2,
    );

    for (let round = 1; round <= rounds; round += 1)
      test(`power cut ${round} of ${rounds} (seed ${SEED})`, async () => await powerCut(round), PATIENCE_MS * 4);

    /** One cut of link and power at moments drawn, a boot without the link, the judgement, and the return. */
    async function powerCut(round: number): Promise<void> {
      const startedMs = performance.now();
      const bytesBefore = node.disk.bytesWritten;
      const lifeS = draw() * MAX_LIFE_S;
      const isCutFirst = draw() < 0.5;
      while (performance.now() - startedMs < lifeS * 1_000) {
        await node.writeMap(node.lastWritten + 1);
        if (isCutFirst && performance.now() - startedMs > lifeS * 500) node.world.cut();
      }
      // The other slot at every second boot: copies belong to both. The firmware's own way the first time.
      const slot = round % 4 >= 2 ? ("b" as const) : ("a" as const);
      const byFirmware = round === 1;
      await node.switchSlot(slot);
      let [loss, lost] = [kind(), 0];
      lost = await node.vm.cutPower(loss, draw);
      node.world.cut();
      await judgeDisk();
      // Every third time the power goes again before the device is up.
      if (round % 3 === 0) {
        node.boot(slot, { clock: "2000-01-01T00:00:00" });
        await Bun.sleep(draw() * Number(process.env["HOLDFAST_LAB_BOOT_S"] ?? 30) * 1_000);
        loss = kind();
        lost += await node.vm.cutPower(loss, draw);
        await judgeDisk();
      }
      const bytesAtCut = node.disk.bytesWritten;
      node.boot(slot, { clock: "2000-01-01T00:00:00", byFirmware });
      await node.vm.isUp(PATIENCE_MS);
      const shellMs = performance.now() - node.vm.bootedMs;
      const { atS, oursS } = await node.ready();
      const containersS = await node.allContainers();
      told(
        `power cut ${round}, ${loss} ${lost} blocks`,
        `${seconds(shellMs)} to a shell, kernel to READY ${atS.toFixed(1)} s, of that ours ${oursS.toFixed(1)} s, READY to last container ${(containersS - atS).toFixed(1)} s, ${((bytesAtCut - bytesBefore) / 2 ** 20).toFixed(1)} MiB written before and ${((node.disk.bytesWritten - bytesAtCut) / 2 ** 20).toFixed(1)} MiB by the boot`,
      );
      expect(await node.vm.mustRun(`${SLOT_SCRIPT} get-current; ${SLOT_SCRIPT} get-primary`)).toBe(`${slot}\n${slot}`);
      const value = await node.mapInCopy();
      expect(value).toBeGreaterThanOrEqual(node.expect().floor);
      expect(value).toBeLessThanOrEqual(node.lastWritten);
      await judgeMachine();
      // Read off the disk after the power had gone: from here on it may not become older.
      node.expect(value);
      await node.writeMap(node.lastWritten + 1);
      node.world.heal();
      await until(
        "the copy is the cluster's again",
        async () => (await node.mapInCopy()) === node.lastWritten,
        PATIENCE_MS,
      );
      await node.nodeIsReady();
      await node.allContainers();
      // What an updater asks before it marks a slot good.
      await node.vm.mustRun("holdfast health --ota --wait 60s", PATIENCE_MS);
      told(`power cut ${round}`, `took ${seconds(performance.now() - startedMs)} in all`);
    }

    async function judgeDisk(): Promise<void> {
      const remains = await node.remains(node.disk.afterCut("forgets", draw));
      expect(await violationsOf(remains, node.expect())).toEqual([]);
      if (!("folder" in remains)) return;
      // What was on the disk once stays the least that may be there.
      node.expect((await valueIn(remains.folder, node.expect().configMap))?.value);
      rmSync(remains.folder, { recursive: true, force: true });
    }

    /** What must be so of the running machine, without its link. */
    async function judgeMachine(): Promise<void> {
      const { vm } = node;
      expect(await node.codeFor()).toBe("401");
      expect(await node.codeFor(node.reader)).toBe("200");
      expect(await node.codeFor(node.stranger)).not.toBe("200");
      expect(JSON.parse(await vm.mustRun("cat /var/lib/holdfast/adopt.json"))).toMatchObject({ phase: "adopted" });
      const pair = await vm.mustRun("cat /var/lib/kubelet/pki/kubelet-client-current.pem");
      expect(new X509Certificate(pair).checkPrivateKey(createPrivateKey(pair))).toBe(true);
      // A clock that forgot the time has gone on from where this device last wrote.
      expect(Math.abs(Number(await vm.mustRun("date +%s")) - Date.now() / 1_000)).toBeLessThan(900);
      expect(await vm.mustRun("systemctl --failed --no-legend")).toBe("");
    }
  });
}

/** As many as the run may take. */
export function cutsFor(short: Cuts, long: Cuts): Cuts {
  return isLong ? long : short;
}
