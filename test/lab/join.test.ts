/**
 * A bare machine with systemd as its first process joins a cluster of kubeadm
 * behind Holdfast, and is taken back and cleared. Steps of one story, in order.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { joinArguments, startKubeadmWorld } from "./kubeadm-cluster.ts";
import { Machine } from "./machine.ts";
import { ADD_ONS, heard, readyInCloud } from "./machine-story.ts";
import { measured, seconds } from "./node-world.ts";
import { titled, whyWithoutMachine } from "./requirements.ts";
import { idlePod, NAMESPACE } from "./workload.ts";
import { type World } from "./world.ts";

const POD = "lone";
const ALL = ADD_ONS + 1;
const STATE = "/var/lib/holdfast";
const DROP_IN = "etc/systemd/system/kubelet.service.d/zz-holdfast.conf";

describe.skipIf(whyWithoutMachine !== undefined)(titled("a bare machine", whyWithoutMachine), () => {
  let world: World;
  let machine: Machine;
  let bare: Record<string, string>;
  const inFolder = (command: string) => machine.mustRun(`cd /root/holdfast && ${command}`, 120_000);

  beforeAll(async () => {
    world = await startKubeadmWorld();
    machine = await Machine.start(world);
    bare = machine.tree("etc", "local");
  }, 240_000);
  afterAll(async () => {
    if (process.env["HOLDFAST_LAB_KEEP"] !== undefined)
      for (const unit of ["kubelet", "holdfast"]) console.log(await machine?.journal(unit, 200));
    await machine?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  test("joins by a token and the pin of the cluster's CA, behind Holdfast from kubelet's first start", async () => {
    await inFolder("HOLDFAST_ARTIFACT_DIR=dist sh install.sh");
    const wrongPin = joinArguments(world).replace(/sha256:\w{8}/, "sha256:00000000");
    const refused = await machine.run(`holdfast join ${wrongPin}`);
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("none of the 1 pinned")]);
    expect(existsSync(join(machine.disk, "etc/kubernetes/kubelet.conf"))).toBe(false);
    const beganMs = Date.now();
    const said = await machine.mustRun(`holdfast join ${joinArguments(world)}`, 180_000);
    measured("holdfast join, from command to a node behind Holdfast", seconds(Date.now() - beganMs));
    expect(said).toContain("has joined, behind Holdfast");
    expect(existsSync(join(machine.disk, DROP_IN))).toBe(true);
    await world.createNamespace(NAMESPACE);
    await world.apply(idlePod(POD));
    await readyInCloud(world, ALL);
    measured("holdfast join, until node, add-ons and a pod are ready", seconds(Date.now() - beganMs));
    expect(await machine.mustRun("holdfast status || true")).toContain("pods started here come through Holdfast");
  }, 240_000);

  test("uninstall refuses under a kubelet that comes through Holdfast; after revert nothing is left but what is kubeadm's", async () => {
    const refused = await machine.run("cd /root/holdfast && sh install.sh --uninstall --purge");
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain("holdfast revert");
    await machine.mustRun("holdfast version");
    await machine.mustRun("holdfast revert", 120_000);
    await heard(world, Date.now());
    await inFolder("sh install.sh --uninstall --purge");
    const left = machine.tree("etc", "local");
    expect(Object.keys(left).filter((path) => !(path in bare) && !path.startsWith("etc/kubernetes/"))).toEqual([]);
    for (const [path, sum] of Object.entries(bare)) expect([path, left[path]]).toEqual([path, sum]);
    expect(existsSync(join(machine.disk, STATE))).toBe(false);
    expect((await machine.run("systemctl list-units --all 'holdfast*' --no-legend")).stdout.trim()).toBe("");
  }, 180_000);
});
