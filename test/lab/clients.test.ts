/**
 * Third parties' clients behind Holdfast: each lists and watches as its own
 * documentation does, is started anew while the link is cut, and is told after
 * the return of what changed, without an end of its watch and without a list
 * that goes up.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ThirdParty, THIRD_PARTIES } from "./clients/clients.ts";
import { type LabProcess, until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";
import { type Holdfast, NODE_NAME, startWorld, type World } from "./world.ts";

/** A Java machine beside other work. */
const STARTS_MS = 60_000;

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("other clients", whyWithoutHoldfast), () => {
  let world: World;
  let holdfast: Holdfast;
  beforeAll(async () => {
    world = await startWorld();
    await world.createNamespace("shop");
    await world.apply({ apiVersion: "v1", kind: "Node", metadata: { name: NODE_NAME } });
    holdfast = await world.startHoldfast();
  }, 120_000);
  afterAll(async () => await world?.[Symbol.asyncDispose]());

  for (const [index, client] of THIRD_PARTIES.entries())
    test.skipIf(client.why !== undefined)(
      titled(client.name, client.why),
      async () => await playedBy(client, index),
      240_000,
    );

  async function playedBy(client: ThirdParty, index: number): Promise<void> {
    await world.apply(pod("web-0"), pod("web-1"));
    const token = await world.tokenFor(`client-${index}`, ["*"]);
    const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, { token });
    try {
      await followThrough(client, kubeconfig);
    } finally {
      await world.inCloud(["delete", "pod", "web-0", "web-1", "-n", "shop", "--force", "--grace-period=0"]);
    }
  }

  async function followThrough(client: ThirdParty, kubeconfig: string): Promise<void> {
    const first = started(client, kubeconfig);
    await first.hasTold("web-0 new");
    await label("web-0", "online");
    await first.hasTold("web-0 online");
    const mark = world.audit.mark();

    world.cut();
    const second = started(client, kubeconfig);
    await second.hasTold("web-0 online");
    await label("web-1", "while-cut");
    world.heal();

    for (const one of [first, second]) await one.hasTold("web-1 while-cut");
    await label("web-0", "after");
    for (const one of [first, second]) {
      await one.hasTold("web-0 after");
      expect([one.process.isRunning, one.told().includes("again")]).toEqual([true, false]);
      await one.process.stop("SIGKILL");
    }
    const lists = world.audit.fullReadsSince(mark, "pods").map(({ userAgent, uri }) => `${userAgent} ${uri}`);
    expect(lists.filter((list) => client.mayList !== true || list.startsWith("holdfast/"))).toEqual([]);
  }

  /** In the cloud, whatever the link does. */
  async function label(name: string, step: string): Promise<void> {
    await world.inCloud(["label", "pod", name, "-n", "shop", "--overwrite", `step=${step}`]);
  }

  function started(client: ThirdParty, kubeconfig: string): Started {
    const process = world.startAtEdge("client", client.command(kubeconfig), client.env?.(kubeconfig) ?? {});
    const told = process.hear();
    return {
      process,
      told,
      hasTold: async (what) =>
        void (await until(
          `${client.name} has told "${what}"`,
          () => {
            if (!process.isRunning) throw new Error(`it has ended: ${process.log.slice(-1_000)}`);
            return told().includes(what);
          },
          STARTS_MS,
        )),
    };
  }
});

interface Started {
  readonly process: LabProcess;
  /** What it has printed. */
  readonly told: () => string;
  hasTold(what: string): Promise<void>;
}

function pod(name: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "shop", labels: { step: "new" } },
    spec: { containers: [{ name: "app", image: "app" }], nodeName: NODE_NAME },
  };
}
