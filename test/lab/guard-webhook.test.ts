/**
 * The whole guard on a real control plane: two replicas, the policies, the
 * truth they write, and the webhook as the only line when the policies are gone.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { GuardWorld, SHOP, unchanged } from "./guard-world.ts";
import { measured, seconds } from "./node-world.ts";
import { type LabProcess, runProcess, until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";

const HOLD = { "node-restriction.kubernetes.io/holdfast": "hold" };
const RELEASED = "node-restriction.kubernetes.io/holdfast-released";
const REACHABLE = "holdfast.dev/Reachable";
const UNREACHABLE = "holdfast.dev/unreachable:NoSchedule";

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("policies and two guards", whyWithoutHoldfast), () => {
  let guarded: GuardWorld;
  let guards: LabProcess[];
  beforeAll(async () => {
    guarded = await GuardWorld.start({ manifests: [] });
    guards = await guarded.startGuards(2);
    await guarded.setParameters({ statusReportInterval: "1s", silentAfter: "10s", "bound.bounded": "20s" });
    await guarded.addNodes(["held", "bounded"], HOLD);
    await guarded.addNodes(["plain", "well"]);
  }, 240_000);
  afterAll(async () => await guarded?.[Symbol.asyncDispose]());

  const reachable = async (name: string) =>
    (await guarded.node(name)).conditions.find(({ type }) => type === REACHABLE)?.status;

  test("held and heard: Reachable is True, nothing is tainted", async () => {
    await until("the truth is told", async () => (await reachable("held")) === "True", 60_000);
    expect((await guarded.node("held")).taints).toEqual([]);
    expect(await reachable("plain")).toBeUndefined();
    expect(await guarded.counted("holdfast_guard_leader")).toBe(1);
  }, 90_000);

  test("a cut: pods, Ready and endpoints stay; the truth is told beside it", async () => {
    const before = await guarded.podsOn("held");
    const cutMs = performance.now();
    await guarded.hollow.silence("held", "bounded", "plain");
    await until("the silence is told", async () => (await reachable("held")) === "False", 60_000);
    measured("cut to the condition Reachable=False, silentAfter 10 s", seconds(performance.now() - cutMs));
    await until("it is tainted", async () => (await guarded.node("held")).taints.includes(UNREACHABLE));
    await guarded.evicted("plain");
    expect(unchanged(await guarded.podsOn("held"))).toEqual(unchanged(before));
    expect((await guarded.node("held")).ready).toBe("True");
    expect([...(await guarded.readyEndpoints())].toSorted()).toContain("held");
    expect(await guarded.eventReasons("Node", "held")).toEqual(["HoldfastSilent"]);
    const said = await guarded.explain("held");
    expect(said).toContain("held: its silence evicts nothing");
    expect(said).toContain("policy holdfast-node-ready");
  }, 180_000);

  describe("hostile requests, through the API server", () => {
    const NODE_CONTROLLER = { user: "system:serviceaccount:kube-system:node-controller", groups: ["system:masters"] };
    const STRATEGIC = "application/strategic-merge-patch+json";
    const pathOf = (name: string) => `/api/v1/namespaces/${SHOP}/pods/${name}`;
    const condition = (type: string, status: string, reason: string) => ({
      status: {
        phase: "Running",
        // Of now: the disruption controller takes a mark of two minutes ago off.
        conditions: [{ type, status, reason, lastTransitionTime: new Date().toISOString() }],
      },
    });
    async function patchStatus(name: string, body: object, as: { user: string; groups: readonly string[] }) {
      const path = `${pathOf(name)}/status`;
      return await guarded.world.requestInCloud({ method: "PATCH", path, body, contentType: STRATEGIC, ...as });
    }
    const ADMIN = { user: "admin", groups: ["system:masters"] };

    test("a review of 3 MB is judged like any other", async () => {
      const env = Array.from({ length: 14 }, (_, index) => ({ name: `E${index}`, value: "x".repeat(100_000) }));
      await guarded.world.inCloud(
        ["create", "-f", "-"],
        JSON.stringify({
          apiVersion: "v1",
          kind: "Pod",
          metadata: { name: "heavy", namespace: SHOP },
          spec: { nodeName: "held", containers: [{ name: "app", image: "none", env }] },
        }),
      );
      expect((await patchStatus("heavy", condition("Ready", "True", ""), ADMIN)).status).toBe(200);
      const { status, body } = await patchStatus("heavy", condition("Ready", "False", ""), NODE_CONTROLLER);
      expect({ status, says: /Cannot mark as not ready pod ."shop\/heavy/.test(body) }).toEqual({
        status: 403,
        says: true,
      });
      await guarded.world.inCloud(["delete", "pod", "heavy", "-n", SHOP, "--grace-period=0", "--force"]);
    }, 60_000);

    // A thousand at once are a matter of the API server's: it gives up waiting after two seconds, by its own clock.
    test("1,000 evictions, sixty-four at a time, dry runs: none passes, and the guard answers the next one", async () => {
      const [pod] = await guarded.podsOn("held");
      const marked = condition("DisruptionTarget", "True", "DeletionByTaintManager");
      expect((await patchStatus(pod!.name, marked, ADMIN)).status).toBe(200);
      const path = pathOf(pod!.name);
      const eviction = {
        method: "DELETE",
        path,
        body: { dryRun: ["All"] },
        contentType: "application/json",
        ...NODE_CONTROLLER,
      };
      expect(await guarded.world.requestInCloud(eviction)).toMatchObject({ status: 403 });
      const counts = new Map<number, number>();
      for (const { status } of await guarded.world.requestsInCloud(eviction, 1_000, 64))
        counts.set(status, (counts.get(status) ?? 0) + 1);
      measured("1,000 evictions of a held pod, answers by status", JSON.stringify([...counts]));
      // 429 is the API server's own limit.
      expect([...counts.keys()].filter((status) => status !== 403 && status !== 429)).toEqual([]);
      expect(counts.get(403)).toBeGreaterThan(0);
      expect((await guarded.world.requestInCloud(eviction)).status).toBe(403);
      const nobody = { ...eviction, user: "nobody-we-know" };
      expect((await guarded.world.requestInCloud(nobody)).status).toBe(200);
      expect((await guarded.podsOn("held")).map(({ uid, isDeleting }) => [uid, isDeleting])).toEqual([
        [pod!.uid, false],
      ]);
    }, 90_000);

    test("what is no review, straight to its port: refused in words, and it goes on", async () => {
      const post = async (body: string) => {
        const script = `const answer = await fetch(process.argv[1], { method: "POST", body: process.argv[2], headers: { "Content-Type": "application/json" }, tls: { rejectUnauthorized: false } });
          process.stdout.write(answer.status + " " + (await answer.text()));`;
        const url = `https://${guarded.world.network.cloudAddress}:10443/validate/pods-delete`;
        const { network } = guarded.world;
        const output = await runProcess(network.within(network.cloud, [process.execPath, "-e", script, url, body]));
        return output.stdout + output.stderr;
      };
      for (const body of [
        "",
        "{",
        "[]",
        "null",
        JSON.stringify({ apiVersion: "admission.k8s.io/v1beta1", kind: "AdmissionReview", request: { uid: "u" } }),
        JSON.stringify({ apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview" }),
      ])
        expect({ body, answer: await post(body) }).toEqual({
          body,
          answer: expect.stringMatching(/^4\d\d .*"kind":"Status"/s),
        });
      expect(await guarded.guardAnswer(0, "/readyz")).toBeDefined();
    }, 60_000);
  });

  test("the bound passes: released, and the control plane does what it would", async () => {
    await until("it is released", async () => (await guarded.node("bounded")).labels[RELEASED] === "bound", 90_000);
    await guarded.evicted("bounded");
    expect(await guarded.eventReasons("Node", "bounded")).toEqual(["HoldfastSilent", "HoldfastReleased"]);
    expect(await guarded.explain("bounded")).toContain("released by the guard: bound");
  }, 180_000);

  test("the leader is killed: the other leads, and says nothing twice", async () => {
    const before = await guarded.eventReasons("Node", "held");
    const leads = await guarded.guardAnswer(0, "/metrics");
    const leader = leads?.includes("holdfast_guard_leader 1") === true ? 0 : 1;
    await guards[leader]!.stop("SIGKILL");
    await guarded.hollow.hear("bounded");
    // Which only a leader takes off.
    await until(
      "the label is off again",
      async () => (await guarded.node("bounded")).labels[RELEASED] === undefined,
      90_000,
    );
    expect(await guarded.eventReasons("Node", "held")).toEqual(before);
  }, 120_000);

  test("the return: nothing was touched, the truth is told, new pods may come", async () => {
    const before = await guarded.podsOn("held");
    await guarded.hollow.hear("held", "plain");
    await until("it is heard", async () => (await reachable("held")) === "True", 60_000);
    await until("the taint is off", async () => (await guarded.node("held")).taints.length === 0);
    expect(unchanged(await guarded.podsOn("held"))).toEqual(unchanged(before));
    expect(await guarded.eventReasons("Node", "held")).toEqual(["HoldfastSilent", "HoldfastHeard"]);
  }, 120_000);

  test("a person's delete never reaches the webhook", async () => {
    const before = await guarded.counted("holdfast_guard_reviews_total", "/validate/");
    const [pod] = await guarded.podsOn("well");
    await guarded.world.inCloud(["delete", "pod", pod!.name, "-n", SHOP]);
    expect(await guarded.counted("holdfast_guard_reviews_total", "/validate/")).toBe(before);
  }, 60_000);

  test("opted out: nothing of ours stays on the node", async () => {
    await guarded.world.inCloud(["label", "node", "held", "node-restriction.kubernetes.io/holdfast-"]);
    await until("the condition is gone", async () => (await reachable("held")) === undefined, 30_000);
  }, 60_000);
});

describe.skipIf(whyWithoutHoldfast !== undefined).each([true, false])(
  titled("the webhook alone; controllers with accounts of their own: %p", whyWithoutHoldfast),
  (hasControllerAccounts) => {
    let guarded: GuardWorld;
    let guards: LabProcess[];
    beforeAll(async () => {
      guarded = await GuardWorld.start({ hasControllerAccounts, manifests: [] });
      guards = await guarded.startGuards(2);
      await guarded.setParameters({ silentAfter: "8s" });
      await guarded.addNodes(["held"], HOLD);
      await guarded.addNodes(["plain", "well-1", "well-2", "well-3"]);
      await guarded.dropPolicies();
    }, 240_000);
    afterAll(async () => await guarded?.[Symbol.asyncDispose]());

    test("a cut: the node is tainted, and its pod stays, ready and in its Service", async () => {
      const before = await guarded.podsOn("held");
      await guarded.hollow.silence("held", "plain");
      await guarded.evicted("plain");
      await until("it is tainted", async () => (await guarded.node("held")).evictingTaints.length > 0, 60_000);
      await until(
        "the webhook has refused an eviction",
        async () => (await guarded.counted("holdfast_guard_reviews_total", 'verdict="denied"', 'reason="held-d')) > 0,
        60_000,
      );
      expect(unchanged(await guarded.podsOn("held"))).toEqual(unchanged(before));
      expect((await guarded.readyEndpoints()).has("held")).toBe(true);
      expect(await guarded.explain(`${SHOP}/${before[0]!.name}`)).toContain("HoldfastDenied");
    }, 180_000);

    test("a slice that is made anew during the silence has the pod too", async () => {
      await guarded.world.inCloud(["delete", "endpointslices", "-n", SHOP, "-l", "kubernetes.io/service-name=web"]);
      await until("the slices are there again", async () => (await guarded.readyEndpoints()).has("held"), 30_000);
    }, 60_000);

    test("a person deletes the pod", async () => {
      const [pod] = await guarded.podsOn("held");
      await guarded.world.inCloud(["delete", "pod", pod!.name, "-n", SHOP, "--wait=false"]);
      expect((await guarded.podsOn("held")).find((one) => one.uid === pod!.uid)?.isDeleting).toBe(true);
    }, 60_000);

    test("the return: marks of refused evictions are cleaned, taints go", async () => {
      await guarded.hollow.hear("held", "plain");
      await until("it is well", async () => (await guarded.node("held")).taints.length === 0, 60_000);
      await until(
        "no pod of it is marked",
        async () => (await guarded.podsOn("held")).every(({ disruption }) => disruption === undefined),
        60_000,
      );
    }, 120_000);

    test("all guards dead, and no policy: nothing is held, and nothing waits for them", async () => {
      for (const guard of guards) await guard.stop("SIGKILL");
      await until("its new pod is ready", async () => {
        const pods = await guarded.podsOn("held");
        return pods.length === 1 && pods[0]!.isReady;
      });
      const [before] = await guarded.podsOn("held");
      await guarded.hollow.silence("held");
      await guarded.evicted("held", before!.uid);
    }, 150_000);
  },
);
