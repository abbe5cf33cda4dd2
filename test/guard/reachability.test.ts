/**
 * The truth about held nodes: view, hearing and writer together, over objects in memory.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { ApiError } from "../../src/cluster/api.ts";
import { explainNode, explainPod, explanationText, NothingToExplain } from "../../src/guard/explain.ts";
import { Happenings } from "../../src/guard/happenings.ts";
import { LiveView } from "../../src/guard/live-view.ts";
import { Reachability, type WitnessVerdict } from "../../src/guard/reachability.ts";
import { ManualClock } from "../support/model.ts";
import { MemoryApi } from "./support.ts";

const LABEL = "node-restriction.kubernetes.io/holdfast";
const NODE = "/api/v1/nodes/edge";
const LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge";
const PARAMETERS = "/api/v1/namespaces/holdfast-system/configmaps/holdfast-guard";
const POD = "/api/v1/namespaces/shop/pods/web";

let clock: ManualClock;
let api: MemoryApi;
let view: LiveView;
let truth: Reachability;
let verdict: WitnessVerdict;
let stop: AbortController;

beforeEach(async () => {
  clock = new ManualClock();
  api = new MemoryApi();
  api.put(NODE, {
    metadata: { name: "edge", uid: "node-uid", labels: { [LABEL]: "hold" }, annotations: {} },
    spec: { taints: [{ key: "kept", value: "as it is", effect: "NoSchedule", timeAdded: "2026-01-01T00:00:00Z" }] },
    status: { conditions: [{ type: "Ready", status: "True" }] },
  });
  api.put(PARAMETERS, { data: { silentAfter: "40s" } });
  renew();
  verdict = "unknown";
  await begin();
});
afterEach(() => stop.abort());

/** A guard that knows nothing of what another saw. */
async function begin(): Promise<void> {
  stop = new AbortController();
  const signal = stop.signal;
  const happenings = new Happenings({
    api,
    clock,
    log: silentLog,
    signal,
    instance: "test",
    dropped: new Metrics().counter("dropped_total", ""),
  });
  view = new LiveView({ api, client: api, clock, log: silentLog, namespace: "holdfast-system", signal });
  truth = new Reachability({ view, api, clock, log: silentLog, happenings, witness: () => verdict });
  void view.start();
  void happenings.run();
  for (let round = 0; round < 50 && !view.isSynced; round++) await clock.pass(1);
  expect(view.missing).toEqual([]);
}

function renew(): void {
  api.put(LEASE, {
    metadata: { namespace: "kube-node-lease" },
    spec: { renewTime: new Date(clock.nowMs()).toISOString() },
  });
}

/** Time passes, the leader looks every second; the node renews its lease or not. */
async function live(seconds: number, isHeard: boolean): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    if (isHeard && second % 10 === 0) renew();
    await clock.pass(1_000);
    view.contact();
    await truth.round();
  }
  await clock.pass(500);
}

interface Node {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: { readonly taints: readonly { readonly key: string }[] };
  readonly status: {
    readonly conditions: readonly { readonly type: string; readonly status: string; readonly message: string }[];
  };
}

const node = () => api.objects.get(NODE) as unknown as Node;
const reachable = () => node().status.conditions.find(({ type }) => type === "holdfast.dev/Reachable");
const taints = () => node().spec.taints.map(({ key }) => key);
const released = () => node().metadata.labels[`${LABEL}-released`];
const events = () =>
  [...api.objects]
    .filter(([path]) => path.includes("/events/"))
    .map(([, object]) => (object as unknown as { reason: string }).reason);
const writes = () => api.asked.filter((one) => /^(PATCH|PUT|POST)/.test(one)).length;

describe("the truth", () => {
  test("a heard node gets its condition once, and nothing more is written", async () => {
    await live(12, true);
    expect(reachable()).toMatchObject({ status: "True" });
    const before = writes();
    await live(60, true);
    expect([writes(), events()]).toEqual([before, []]);
  });

  test("a cut is told once, whoever leads; the return too; other taints stay byte by byte", async () => {
    await live(12, true);
    await live(60, false);
    // Not toMatchObject with a matcher inside: the runner writes the matcher into the object.
    expect(reachable()?.status).toBe("False");
    expect(reachable()?.message).toContain("lastSeen: ");
    expect(taints()).toEqual(["kept", "holdfast.dev/unreachable"]);
    expect(events()).toEqual(["HoldfastSilent"]);
    const before = writes();
    stop.abort();
    await begin();
    await live(60, false);
    expect([writes(), events()]).toEqual([before, ["HoldfastSilent"]]);
    await live(12, true);
    expect(reachable()?.status).toBe("True");
    expect(node().spec.taints).toEqual([
      { key: "kept", value: "as it is", effect: "NoSchedule", timeAdded: "2026-01-01T00:00:00Z" },
    ] as never);
    expect(events()).toEqual(["HoldfastSilent", "HoldfastHeard"]);
  });

  test("no taint where it is not wanted, and it goes when the wish changes", async () => {
    await live(12, true);
    await live(60, false);
    expect(taints()).toContain("holdfast.dev/unreachable");
    api.put(PARAMETERS, { data: { taint: "false" } });
    await live(2, false);
    expect(taints()).toEqual(["kept"]);
  });

  test("the bound passes: released; heard again: held again", async () => {
    api.put(PARAMETERS, { data: { "bound.edge": "3m" } });
    await live(12, true);
    await live(170, false);
    expect(released()).toBeUndefined();
    await live(20, false);
    expect(released()).toBe("bound");
    expect(events()).toEqual(["HoldfastSilent", "HoldfastReleased"]);
    await live(12, true);
    expect(released()).toBeUndefined();
  });

  test("a guard that starts anew does not begin the bound anew", async () => {
    api.put(PARAMETERS, { data: { "bound.edge": "3m" } });
    await live(12, true);
    await live(150, false);
    stop.abort();
    await begin();
    await live(50, false);
    expect(released()).toBe("bound");
  });

  test("nobody hears it: released at once, but only where witnesses are asked for", async () => {
    verdict = "unheard";
    await live(12, true);
    await live(60, false);
    expect(released()).toBeUndefined();
    api.put(NODE, {
      ...api.objects.get(NODE)!,
      metadata: { ...api.objects.get(NODE)!.metadata, labels: { [LABEL]: "witness" } },
    });
    await live(3, false);
    expect(released()).toBe("unheard");
  });

  test("our own blindness is told as nobody's silence", async () => {
    await live(12, true);
    for (let second = 0; second < 300; second++) {
      await clock.pass(1_000);
      await truth.round();
    }
    expect(reachable()?.status).toBe("True");
  });

  test("opted out: nothing of ours stays", async () => {
    await live(12, true);
    await live(60, false);
    const { metadata, ...rest } = api.objects.get(NODE)!;
    api.put(NODE, { ...rest, metadata: { ...metadata, labels: {} } });
    await live(3, false);
    expect([reachable(), taints(), released()]).toEqual([undefined, ["kept"], undefined]);
  });

  test("marks of refused evictions are taken off when the node is well again, and not before", async () => {
    const mark = () =>
      (api.objects.get(POD) as unknown as Node).status.conditions.find(({ type }) => type === "DisruptionTarget");
    api.put(POD, {
      metadata: { namespace: "shop", uid: "pod-uid" },
      spec: { nodeName: "edge" },
      status: {
        phase: "Running",
        conditions: [{ type: "DisruptionTarget", status: "True", reason: "DeletionByTaintManager" }],
      },
    });
    const { spec, ...rest } = api.objects.get(NODE) as unknown as Node;
    api.put(NODE, {
      ...rest,
      spec: { taints: [...spec.taints, { key: "node.kubernetes.io/unreachable", effect: "NoExecute" }] },
    });
    await live(12, true);
    expect(mark()).toMatchObject({ status: "True" });
    api.put(NODE, { ...api.objects.get(NODE)!, spec });
    await live(3, true);
    expect(mark()).toMatchObject({ status: "False", reason: "HoldfastNodeHeard" });
  });

  test("twenty-five nodes that cannot be written keep no other from being told", async () => {
    for (let index = 0; index < 25; index++) {
      api.put(`/api/v1/nodes/a-${index}`, { ...node(), metadata: { ...node().metadata, name: `a-${index}` } });
      api.put(LEASE.replace("edge", `a-${index}`), { spec: { renewTime: "2026-01-01T00:00:00Z" } });
    }
    // In front of ours, as the view lists them.
    const ours = node();
    api.remove(NODE);
    await clock.pass(1);
    api.put(NODE, ours);
    api.refuses = (asked) => /^PATCH .*\/nodes\/a-/.test(asked);
    await live(12, true);
    await live(60, false);
    expect([reachable()?.status, taints()]).toEqual(["False", ["kept", "holdfast.dev/unreachable"]]);
  });

  test("one pod that cannot be patched holds up neither its node nor the other pods", async () => {
    const marked = { conditions: [{ type: "DisruptionTarget", status: "True", reason: "DeletionByTaintManager" }] };
    const web = (name: string) => POD.replace("web", name);
    for (const name of ["a", "b"])
      api.put(web(name), { metadata: { namespace: "shop", uid: name }, spec: { nodeName: "edge" }, status: marked });
    await live(60, false);
    api.refuses = (asked) => asked === `PATCH ${web("a")}/status`;
    await live(12, true);
    const disruption = (name: string) =>
      (api.objects.get(web(name)) as unknown as { status: typeof marked }).status.conditions[0]!.status;
    expect([reachable()?.status, taints(), disruption("a"), disruption("b")]).toEqual([
      "True",
      ["kept"],
      "True",
      "False",
    ]);
    const tries = () => api.asked.filter((asked) => asked === `PATCH ${web("a")}/status`).length;
    expect(tries()).toBeGreaterThan(1);
    expect(tries()).toBeLessThan(6);
  });

  test("a taint that cannot be taken off keeps neither the condition nor the label back", async () => {
    api.put(PARAMETERS, { data: { silentAfter: "40s", bound: "50s" } });
    await live(12, true);
    await live(70, false);
    expect([reachable()?.status, released()]).toEqual(["False", "bound"]);
    const patch = api.patch.bind(api);
    api.patch = async (path, type, body) => {
      if ("spec" in (body as object)) throw new ApiError("refused", 500, "InternalError");
      return await patch(path, type, body);
    };
    await live(12, true);
    expect([reachable()?.status, released()]).toEqual(["True", undefined]);
  });

  test("a watch that stands still is nobody's silence: the lease itself is read before anybody is told", async () => {
    await live(12, true);
    // The node goes on; its renewals reach the API server and not us.
    const quiet = (seconds: number) => clock.nowMs() + seconds * 1_000;
    for (const untilMs = quiet(60); clock.nowMs() < untilMs;) {
      const kept = api.objects.get(LEASE)!;
      api.objects.set(LEASE, {
        ...kept,
        metadata: { ...kept.metadata, resourceVersion: String(Number(kept.metadata.resourceVersion) + 1) },
        spec: { renewTime: new Date(clock.nowMs()).toISOString() },
      });
      await clock.pass(1_000);
      view.contact();
      await truth.round();
    }
    expect([reachable()?.status, taints(), events()]).toEqual(["True", ["kept"], []]);
  });

  test("somebody else writes the node at the same moment: tried again, nothing lost", async () => {
    await live(12, true);
    api.failure = new ApiError("conflict", 409, "Conflict");
    await live(60, false);
    api.failure = undefined;
    await live(3, false);
    expect(taints()).toEqual(["kept", "holdfast.dev/unreachable"]);
  });
});

describe("objects that are odd", () => {
  test.each([
    [NODE, { metadata: { name: "edge" } }],
    [NODE, { metadata: { name: "edge" }, spec: { taints: "none" } }],
    [NODE, { metadata: { name: "edge", labels: { [LABEL]: "hold" } }, status: { conditions: [{}, { type: 5 }] } }],
    [LEASE, { metadata: {} }],
    [LEASE, { metadata: {}, spec: { renewTime: 12 } }],
    [POD, { metadata: { namespace: "shop" } }],
    [POD, { metadata: { namespace: "shop" }, status: { conditions: null } }],
    [PARAMETERS, { data: "none" }],
    [PARAMETERS, { data: { bound: 5 } }],
    [PARAMETERS, { data: { bound: "soon", silentAfter: "0", witnesses: "many" } }],
  ])("%s %j blinds nobody", async (path, object) => {
    api.put(path, object);
    await live(12, true);
    expect(view.isSynced).toBe(true);
    expect([...view.nodes()].length).toBeLessThanOrEqual(1);
    api.remove(path);
    await live(2, true);
    expect(view.isSynced).toBe(true);
  });

  test("a ConfigMap that is gone is known to be gone", async () => {
    api.remove(PARAMETERS);
    await live(2, true);
    expect(view.hasParameters).toBe(false);
  });
});

describe("explain", () => {
  const options = () => ({ api, namespace: "holdfast-system", nowMs: clock.nowMs() });

  test("a held node: why, since when, and what a person can do", async () => {
    api.put(PARAMETERS, { data: { "bound.edge": "72h" } });
    await live(12, true);
    await live(60, false);
    const explanation = await explainNode("edge", options());
    expect(explanation.verdict).toBe("held");
    const said = explanationText(explanation);
    for (const text of [
      "opted in by label",
      "bound: 3d, from parameter bound.edge",
      "HoldfastSilent",
      `kubectl label node edge ${LABEL}-`,
      "is False: lastSeen",
    ])
      expect(said).toContain(text);
  });

  test("every other verdict", async () => {
    const said = async (metadata: object, more: object = {}) => {
      api.put(NODE, {
        metadata: { name: "edge", labels: { [LABEL]: "hold" }, ...metadata },
        status: { conditions: [{ type: "Ready", status: "True" }] },
        ...more,
      });
      return (await explainNode("edge", options())).verdict;
    };
    expect(await said({ labels: {} })).toBe("not-opted-in");
    expect(await said({ labels: { [LABEL]: "hold", [`${LABEL}-released`]: "bound" } })).toBe("released");
    expect(await said({}, { spec: { taints: [{ key: "mine", effect: "NoExecute" }] } })).toBe("tainted-by-person");
    expect(await said({}, { status: { conditions: [{ type: "Ready", status: "False" }] } })).toBe("not-ready-itself");
    api.put(PARAMETERS, { data: { bound: "10s" } });
    await clock.pass(60_000);
    expect(await said({})).toBe("bound-passed");
  });

  test("a pod: by its node; without one; on one that is gone; none at all", async () => {
    const pod = (nodeName: string) =>
      api.put(POD, { metadata: { namespace: "shop" }, spec: { nodeName }, status: { phase: "Running" } });
    pod("edge");
    const explanation = await explainPod("shop", "web", options());
    expect([explanation.verdict, explanation.steps[0]]).toEqual([
      "held",
      "to delete it all the same: kubectl delete pod -n shop web",
    ]);
    pod("");
    expect((await explainPod("shop", "web", options())).verdict).toBe("not-bound");
    pod("lost");
    expect((await explainPod("shop", "web", options())).verdict).toBe("node-gone");
    expect(explainPod("shop", "none", options())).rejects.toThrow(NothingToExplain);
    expect(explainNode("none", options())).rejects.toThrow(NothingToExplain);
  });

  test("without the ConfigMap it says that the policies sleep", async () => {
    api.remove(PARAMETERS);
    expect(explanationText(await explainNode("edge", options()))).toContain("policies on nodes are asleep");
  });
});
