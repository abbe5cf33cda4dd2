/**
 * What a real API server answers with an old resourceVersion, and by right,
 * makes no followed list list anew: the audit log counts.
 */
import { expect, test } from "bun:test";
import { until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";
import { startWorld } from "./world.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const configMap = (name: string, metadata: object = {}) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "shop", ...metadata },
  data: { a: "1" },
});

test.skipIf(whyWithoutHoldfast !== undefined)(
  titled("old by right is not history that went back", whyWithoutHoldfast),
  async () => {
    await using world = await startWorld();
    await world.createNamespace("shop");
    await world.apply(configMap("old"), configMap("ending", { finalizers: ["lab.holdfast.dev/hold"] }));
    const token = await world.tokenFor("person", ["*"]);
    const holdfast = await world.startHoldfast();
    const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, { token });
    const run = (...args: string[]) => world.kubectl(args, { kubeconfig });
    const apply = () =>
      world.kubectl(["apply", "--server-side", "-f", "-"], { kubeconfig, input: JSON.stringify(configMap("applied")) });
    expect((await apply()).exitCode).toBe(0);
    const first = JSON.parse((await run("get", `--raw=${LIST}?limit=1`)).stdout) as {
      metadata: { continue: string; resourceVersion: string };
    };
    const { continue: next, resourceVersion } = first.metadata;
    const watch = world.startKubectl(["get", "configmaps", "-n", "shop", "-w", "-o", "name"], kubeconfig);
    const shown = watch.hear();
    await until("the watch shows what is there", () => shown().includes("configmap/old"));
    await world.apply(configMap("newer"));
    await until("the watch shows what is new", () => shown().includes("configmap/newer"));

    const asked: readonly (readonly [string, () => Promise<unknown>])[] = [
      [
        "a patch that changes nothing",
        () => run("patch", "configmap", "old", "-n", "shop", "--type=merge", '-p={"data":{"a":"1"}}'),
      ],
      ["an apply that changes nothing", apply],
      ["a later page", () => run("get", `--raw=${LIST}?limit=1&continue=${next}`)],
      [
        "an exact list",
        () => run("get", `--raw=${LIST}?resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`),
      ],
      ["a delete that a finalizer holds", () => run("delete", "configmap", "ending", "-n", "shop", "--wait=false")],
      [
        "the patch that removes the last finalizer",
        () => run("patch", "configmap", "ending", "-n", "shop", "--type=merge", '-p={"metadata":{"finalizers":null}}'),
      ],
    ];
    for (const [index, [what, ask]] of asked.entries()) {
      const mark = world.audit.mark();
      await ask();
      await world.apply(configMap(`after-${index}`));
      await until(`the watch goes on after ${what}`, () => shown().includes(`configmap/after-${index}`));
      const lists = world.audit.fullReadsSince(mark, "configmaps").length;
      expect([what, lists]).toEqual([what, what === "a later page" || what === "an exact list" ? 1 : 0]);
    }
  },
);
