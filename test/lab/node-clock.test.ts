/**
 * A machine without a clock battery boots while the link is cut: it is 1970
 * until the network tells the time, which then jumps by half a century.
 *
 * Holdfast alone lives in that time, by libfaketime; the machine's clock stays as
 * it is. node-clock-kubelet.test.ts has a kubelet that lives there too.
 */
import { describe, expect, test } from "bun:test";
import type { LabCredential } from "./kubeconfig.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutClock } from "./requirements.ts";
import { NODE_NAME, startWorld, type World } from "./world.ts";
import { IMAGE } from "./node-image.ts";
import { WrongClock } from "./wrong-clock.ts";

const NAMESPACE = "shop";
const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE_NAME}`;

interface Client {
  readonly who: string;
  readonly credential: (world: World) => Promise<LabCredential>;
}

const CLIENTS: readonly Client[] = [
  { who: "kubelet, by its certificate,", credential: async (world) => world.certificateOf("node") },
  {
    who: "a pod's client, by its token,",
    credential: async (world) => ({ token: await world.tokenFor("client", ["get", "list", "watch"]) }),
  },
];

describe.skipIf(whyWithoutClock !== undefined)(titled("a clock that is wrong", whyWithoutClock), () => {
  test.each(CLIENTS)(
    "boot at 1970 while cut: $who is served what is kept, also when the time jumps and the link returns",
    async ({ credential }) => {
      await lived(credential, 60_000);
    },
  );

  test("boot four hundred days late while cut, after the node's own certificate has ended: kubelet is served what is kept, also when the time jumps back and the link returns", async () => {
    await lived(CLIENTS[0]!.credential, Date.now() + 400 * 86_400_000);
  });

  /** Boots while cut at a wrong time, which is told before the link returns. */
  async function lived(credential: Client["credential"], bootMs: number): Promise<void> {
    await using world = await startWorld();
    await world.createNamespace(NAMESPACE);
    await world.apply(pod("before"));
    const first = await world.startHoldfast();
    const client = world.proxyKubeconfig(first.stateDir, await credential(world));
    const read = async () => await namesOfPods(world, client);
    expect(await read()).toEqual(["before"]);

    world.cut();
    await first.stop("SIGKILL");
    const clock = new WrongClock(world.directory);
    clock.set(bootMs);
    const holdfast = await world.startHoldfast({ stateDir: first.stateDir, env: clock.env });
    expect(holdfast.process.log).toContain(`"time":"${new Date(bootMs).toISOString().slice(0, 10)}`);
    expect(await read()).toEqual(["before"]);
    const watching = world.startKubectl(["get", "--raw", `${PODS}&watch=true`], client);
    const heard = watching.hear();
    await until("the watch shows the pod", () => heard().includes('"name":"before"'));

    clock.tellTheTruth();
    expect(await read()).toEqual(["before"]);
    world.heal();
    await world.apply(pod("after"));
    await until("the watch that began then shows what came after", () => heard().includes('"name":"after"'));
    expect(await read()).toEqual(["after", "before"]);

    await holdfast.stop();
    world.cut();
    await using _again = await world.startHoldfast({ stateDir: first.stateDir });
    expect(await read()).toEqual(["after", "before"]);
  }
});

async function namesOfPods(world: World, kubeconfig: string): Promise<string[]> {
  const got = await world.kubectl(["get", "--raw", PODS], { kubeconfig });
  if (got.exitCode !== 0) throw new Error(got.stderr);
  const { items } = JSON.parse(got.stdout) as { readonly items: readonly { metadata: { name: string } }[] };
  return items.map((item) => item.metadata.name).toSorted();
}

function pod(name: string): object {
  const spec = {
    nodeName: NODE_NAME,
    automountServiceAccountToken: false,
    containers: [{ name: "app", image: IMAGE }],
  };
  return { apiVersion: "v1", kind: "Pod", metadata: { name, namespace: NAMESPACE }, spec };
}
