/**
 * Dead or cut: a real Holdfast beside a silent node is asked by a real guard, and answers under its node's identity.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { GuardWorld } from "./guard-world.ts";
import { measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";
import { NODE_NAME, type Holdfast } from "./world.ts";

const WITNESS = { "node-restriction.kubernetes.io/holdfast": "witness", "holdfast.dev/pool": "plant" };
const RELEASED = "node-restriction.kubernetes.io/holdfast-released";
const QUESTION = "holdfast.dev/listen-for";
const REPORT = "holdfast.dev/heard";

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("a witness on the LAN", whyWithoutHoldfast), () => {
  let guarded: GuardWorld;
  let holdfast: Holdfast;
  beforeAll(async () => {
    guarded = await GuardWorld.start({ manifests: [] });
    const { world } = guarded;
    await guarded.startGuards(1);
    await guarded.setParameters({ silentAfter: "10s", witnesses: "1" });
    // The neighbour: its Node and lease are spoken for, its Holdfast is real.
    await guarded.hollow.add([NODE_NAME], { "holdfast.dev/pool": "plant" });
    holdfast = await world.startHoldfast();
    // Kubelet's watch of its own Node, by which Holdfast hears of questions.
    world.startKubectl(
      ["get", "node", NODE_NAME, "-w", "-o", "name"],
      world.proxyKubeconfig(holdfast.stateDir, world.certificateOf("node")),
    );
    await guarded.addNodes(["dead", "alive"], WITNESS);
    await guarded.addNodes(["elsewhere"], { ...WITNESS, "holdfast.dev/pool": "other" });
    await guarded.addNodes(["plain"]);
    // Where they would be on the LAN: nobody has the one address, the API server's machine answers on the other.
    await address("dead", world.network.unusedAddress, 10_250);
    await address("alive", world.network.cloudAddress, 6_443);
    await address("elsewhere", world.network.unusedAddress, 10_250);
  }, 240_000);
  afterAll(async () => {
    await holdfast?.stop();
    await guarded?.[Symbol.asyncDispose]();
  });

  async function address(node: string, ip: string, port: number): Promise<void> {
    await guarded.hollow.place(node, ip, port);
    await until(`${node} has its address`, async () =>
      (await guarded.world.inCloud(["get", "node", node, "-o", "jsonpath={.status.addresses[*].address}"])).includes(
        ip,
      ),
    );
  }

  const annotation = async (node: string, key: string) =>
    await guarded.world.inCloud([
      "get",
      "node",
      node,
      "-o",
      `jsonpath={.metadata.annotations.${key.replaceAll(".", String.raw`\.`)}}`,
    ]);

  test("nobody is asked while all are heard", async () => {
    expect(await annotation(NODE_NAME, QUESTION)).toBe("");
  });

  test("the dead one is released, the living one and the one without neighbours are held", async () => {
    const cutMs = performance.now();
    await guarded.hollow.silence("dead", "alive", "elsewhere", "plain");
    await until("the neighbour is asked", async () => (await annotation(NODE_NAME, QUESTION)).includes("dead"), 60_000);
    await until("it has answered", async () => (await annotation(NODE_NAME, REPORT)) !== "", 60_000);
    await until(
      "the dead one is released",
      async () => (await guarded.node("dead")).labels[RELEASED] === "unheard",
      60_000,
    );
    measured("cut to release by witness, silentAfter 10 s", seconds(performance.now() - cutMs));
    await guarded.evicted("dead");
    await guarded.evicted("plain");
    for (const name of ["alive", "elsewhere"]) {
      const node = await guarded.node(name);
      expect({ name, ready: node.ready, released: node.labels[RELEASED] }).toEqual({
        name,
        ready: "True",
        released: undefined,
      });
      expect((await guarded.podsOn(name)).every(({ isDeleting, isReady }) => isReady && !isDeleting)).toBe(true);
    }
  }, 240_000);

  test("a report that is copied to another node, or written by anybody else, is none", async () => {
    const report = await annotation(NODE_NAME, REPORT);
    await guarded.world.inCloud(["annotate", "node", "plain", `${REPORT}=${report}`]);
    const log = await until(
      "the guard has said so",
      async () => {
        const text = guarded.guardLogs();
        return text.includes("a witness report that its node has not signed") ? text : undefined;
      },
      30_000,
    );
    expect(log).toContain('"node":"plain"');
    // A kubelet can write on its own Node alone.
    const other = await guarded.world.requestInCloud({
      method: "PATCH",
      path: "/api/v1/nodes/alive",
      body: { metadata: { annotations: { [REPORT]: report } } },
      user: `system:node:${NODE_NAME}`,
      groups: ["system:nodes"],
    });
    expect(other.status).toBe(403);
  }, 60_000);
});
