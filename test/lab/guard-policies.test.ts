/**
 * The policies alone, no pod of ours anywhere: a cut node keeps its pods, and
 * whoever is not a controller notices nothing.
 *
 * A node without the label is always cut beside the held ones. Its pod is
 * evicted, which shows that the controllers did get as far as evicting.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { deploymentOn, GuardWorld, SHOP, unchanged } from "./guard-world.ts";
import { isLong } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";

const LABEL = "node-restriction.kubernetes.io/holdfast";
const HOLD = { [LABEL]: "hold" };

describe.skipIf(whyWithoutHoldfast !== undefined).each([true, false])(
  titled("policies alone; controllers with accounts of their own: %p", whyWithoutHoldfast),
  (hasControllerAccounts) => {
    // What does not depend on who the controllers are is shown once, unless there is time.
    const isWhole = hasControllerAccounts || isLong;
    const testOnce = isWhole ? test : () => undefined;
    const describeOnce = isWhole ? describe : () => undefined;
    let guarded: GuardWorld;
    beforeAll(async () => {
      guarded = await GuardWorld.start({ hasControllerAccounts, manifests: ["--policies-only"] });
      await guarded.setParameters({ statusReportInterval: "1s", "bound.bounded": "25s" });
      await guarded.addNodes(["held", "bounded", "failing"], HOLD);
      await guarded.addNodes(["plain", "yurt"]);
      await guarded.world.inCloud(["annotate", "node", "yurt", "node.beta.openyurt.io/autonomy=true"]);
    }, 240_000);
    afterAll(async () => await guarded?.[Symbol.asyncDispose]());

    test("a cut: the held keep their pods, Ready and endpoints; the bounded until their bound; a plain node loses them", async () => {
      const before = [...(await guarded.podsOn("held")), ...(await guarded.podsOn("yurt"))];
      const [bounded] = await guarded.podsOn("bounded");
      await guarded.hollow.silence("held", "bounded", "plain", "yurt");
      await guarded.evicted("plain");
      expect((await guarded.node("plain")).ready).toBe("Unknown");
      expect((await guarded.node("bounded")).ready).toBe("True");
      await guarded.evicted("bounded", bounded!.uid);
      for (const name of ["held", "yurt"]) {
        const { ready, evictingTaints } = await guarded.node(name);
        expect({ name, ready, evictingTaints }).toEqual({ name, ready: "True", evictingTaints: [] });
      }
      const after = [...(await guarded.podsOn("held")), ...(await guarded.podsOn("yurt"))];
      expect(unchanged(after)).toEqual(unchanged(before));
      const ready = await guarded.readyEndpoints();
      expect([ready.has("held"), ready.has("yurt"), ready.has("plain")]).toEqual([true, true, false]);
    }, 240_000);

    testOnce(
      "controllers and API server started anew during the cut know nothing of before, and change nothing",
      async () => {
        const before = await guarded.podsOn("held");
        await guarded.world.restartApiServer();
        await guarded.world.restartControllerManager();
        // More nodes away than there, and the controller stops evicting anybody; held ones do not count for it.
        await guarded.hollow.hear("plain", "bounded");
        for (const name of ["plain", "bounded"])
          await until(`${name} is back`, async () => (await guarded.node(name)).evictingTaints.length === 0, 60_000);
        // The yardstick: a node cut after the restart is given up again.
        await guarded.addNodes(["late"]);
        await guarded.hollow.silence("late");
        await guarded.evicted("late");
        expect(unchanged(await guarded.podsOn("held"))).toEqual(unchanged(before));
        expect((await guarded.node("held")).evictingTaints).toEqual([]);
      },
      240_000,
    );

    testOnce(
      "the link returns: nothing was touched",
      async () => {
        const before = await guarded.podsOn("held");
        await guarded.hollow.hear("held", "yurt", "late");
        await until("late is back", async () => (await guarded.node("late")).evictingTaints.length === 0, 60_000);
        expect(unchanged(await guarded.podsOn("held"))).toEqual(unchanged(before));
      },
      120_000,
    );

    testOnce(
      "bound passed: the returning node lets go of its old pod and is ready again",
      async () => {
        await until(
          "one pod, ready",
          async () => {
            const pods = await guarded.podsOn("bounded");
            return pods.length === 1 && pods[0]!.isReady && !pods[0]!.isDeleting;
          },
          60_000,
        );
        expect((await guarded.node("bounded")).ready).toBe("True");
      },
      90_000,
    );

    testOnce(
      "not ready by its own word: taken out of the Service and evicted, label or not",
      async () => {
        await guarded.hollow.fail("failing");
        await guarded.evicted("failing");
        expect((await guarded.readyEndpoints()).has("failing")).toBe(false);
      },
      120_000,
    );

    testOnce(
      "a probe that fails online takes its pod out of the Service as ever",
      async () => {
        const [pod] = await guarded.podsOn("held");
        await guarded.hollow.failProbes(`${SHOP}/${pod!.name}`);
        await until("it is out", async () => !(await guarded.readyEndpoints()).has("held"), 30_000);
      },
      60_000,
    );

    describeOnce("people win", () => {
      beforeAll(async () => {
        await guarded.addNodes(["people", "drained", "gone"], HOLD);
        await guarded.hollow.silence("people", "drained", "gone");
        await guarded.addNodes(["measure"]);
        await guarded.hollow.silence("measure");
        // From here on the controllers have judged all four.
        await guarded.evicted("measure");
      }, 240_000);

      test("rollout restart and delete: the old pod is told to go", async () => {
        const [pod] = await guarded.podsOn("people");
        await guarded.world.inCloud(["rollout", "restart", "deployment/people", "-n", SHOP]);
        await until("the old pod is told to go", async () =>
          (await guarded.podsOn("people")).some((one) => one.uid === pod!.uid && one.isDeleting),
        );
        await guarded.world.inCloud(["delete", "pod", pod!.name, "-n", SHOP, "--force", "--grace-period=0"]);
        expect((await guarded.podsOn("people")).some((one) => one.uid === pod!.uid)).toBe(false);
      }, 60_000);

      test("scale-down", async () => {
        await guarded.world.inCloud(["scale", "deployment/people", "-n", SHOP, "--replicas=0"]);
        await until("all of its pods are told to go", async () =>
          (await guarded.podsOn("people")).every((pod) => pod.isDeleting),
        );
      }, 60_000);

      test("drain, with force", async () => {
        const [pod] = await guarded.podsOn("drained");
        await guarded.world
          .inCloud(["drain", "drained", "--force", "--ignore-daemonsets", "--grace-period=0", "--timeout=2s"])
          .catch(() => "");
        const after = (await guarded.podsOn("drained")).find((one) => one.uid === pod!.uid);
        expect(after === undefined || after.isDeleting).toBe(true);
        expect(await guarded.world.inCloud(["get", "node", "drained", "-o", "jsonpath={.spec.unschedulable}"])).toBe(
          "true",
        );
      }, 60_000);

      testOnce(
        "a node deleted by a person is gone, and so are its pods",
        async () => {
          const [pod] = await guarded.podsOn("gone");
          await guarded.world.inCloud(["delete", "node", "gone", "--wait=false"]);
          await until(
            "its pod is collected",
            async () => {
              const pods = await guarded.pods();
              return pods.every((one) => one.uid !== pod!.uid || one.isDeleting);
            },
            120_000,
          );
        },
        150_000,
      );

      testOnce(
        "a namespace deleted during the cut",
        async () => {
          await guarded.world.createNamespace("short");
          await guarded.world.apply({ ...deploymentOn("held"), metadata: { name: "held", namespace: "short" } });
          await until("its pod is there", async () => (await guarded.pods("short")).length === 1);
          await guarded.hollow.silence("held");
          await guarded.world.inCloud(["delete", "namespace", "short", "--wait=false"]);
          await until("its pod is told to go", async () =>
            (await guarded.pods("short")).every((pod) => pod.isDeleting),
          );
          await guarded.hollow.hear("held");
          await until(
            "it is gone, by kubelet's own final delete",
            async () => (await guarded.refusal(["get", "namespace", "short"])).includes("NotFound"),
            60_000,
          );
        },
        120_000,
      );
    });
  },
);

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("who may opt a node in", whyWithoutHoldfast), () => {
  let guarded: GuardWorld;
  beforeAll(async () => {
    guarded = await GuardWorld.start({ manifests: ["--policies-only"] });
    await guarded.addNodes(["mine", "other"]);
  }, 180_000);
  afterAll(async () => await guarded?.[Symbol.asyncDispose]());

  const asNode = (name: string) => [`--as=system:node:${name}`, "--as-group=system:nodes"];

  test("a kubelet can neither label nor annotate itself, nor release itself", async () => {
    for (const label of [`${LABEL}=hold`, `${LABEL}-released=bound`])
      expect(await guarded.refusal(["label", "node", "mine", label, ...asNode("mine")])).toMatch(
        /forbidden|not allowed/i,
      );
    for (const annotation of ["node.beta.openyurt.io/autonomy=true", "node.openyurt.io/autonomy-duration=0"]) {
      expect(await guarded.refusal(["annotate", "node", "mine", annotation, ...asNode("mine")])).toContain(
        "ask an administrator",
      );
      const [key, value] = annotation.split("=");
      const byStatus = await guarded.world.requestInCloud({
        method: "PATCH",
        path: "/api/v1/nodes/mine/status",
        body: { metadata: { annotations: { [key!]: value } } },
        user: "system:node:mine",
        groups: ["system:nodes"],
      });
      expect(byStatus).toMatchObject({ status: 403, body: expect.stringContaining("ask an administrator") });
    }
    // What an administrator gave it may not take away either.
    await guarded.world.inCloud(["label", "node", "mine", `${LABEL}=hold`]);
    expect(await guarded.refusal(["label", "node", "mine", `${LABEL}-`, ...asNode("mine")])).toMatch(
      /forbidden|not allowed/i,
    );
    // And the rest of its own object stays its own.
    expect(await guarded.refusal(["annotate", "node", "mine", "example.com/mood=good", ...asNode("mine")])).toBe("");
  });

  test("a value nobody knows is refused, and names those that are known", async () => {
    expect(await guarded.refusal(["label", "node", "other", `${LABEL}=yes`])).toContain("hold, true, witness");
    expect(await guarded.refusal(["label", "node", "other", `${LABEL}=witness`])).toBe("");
    expect(await guarded.refusal(["label", "node", "other", `${LABEL}-`])).toBe("");
  });

  test("parameters that cannot be read are refused with their name", async () => {
    for (const [key, value] of [
      ["bound", "3 days"],
      ["bound.mine", "-1h"],
      ["silentAfter", "0"],
      ["taint", "yes"],
      ["witnesses", "0"],
    ] as const) {
      const patch = JSON.stringify({ data: { [key]: value } });
      const args = ["patch", "configmap", "holdfast-guard", "-n", "holdfast-system", "--type=merge", "-p", patch];
      expect(await guarded.refusal(args)).toContain(key.split(".")[0]!);
    }
    await guarded.setParameters({ bound: "72h", "bound.mine": "0" });
  });
});
