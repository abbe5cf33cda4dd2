/**
 * Who is asked about a silent node, and what is made of the answers.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { createAuthority, issueClientCertificate } from "../../src/certificates/authority.ts";
import { LiveView } from "../../src/guard/live-view.ts";
import { WitnessPanel } from "../../src/guard/witness-panel.ts";
import { QUESTION_ANNOTATION, readQuestion, REPORT_ANNOTATION } from "../../src/kube/witness-report.ts";
import { signReport } from "../../src/witness/witness.ts";
import { ManualClock } from "../support/model.ts";
import { MemoryApi } from "./support.ts";

class Clock extends ManualClock {
  readonly shiftMs = Date.now();

  override nowMs(): number {
    return super.nowMs() + this.shiftMs;
  }
}

const authority = createAuthority({ commonName: "cluster", nowMs: Date.now() });
const LABEL = "node-restriction.kubernetes.io/holdfast";

let clock: Clock;
let api: MemoryApi;
let view: LiveView;
let panel: WitnessPanel;
let stop: AbortController;
let heard: Set<string>;
let octet: number;

function addNode(name: string, pool: string): void {
  api.put(`/api/v1/nodes/${name}`, {
    metadata: {
      name,
      uid: name,
      labels: { "holdfast.dev/pool": pool, ...(name.startsWith("far") ? { [LABEL]: "witness" } : {}) },
      annotations: {},
    },
    status: {
      conditions: [{ type: "Ready", status: "True" }],
      addresses: [
        { type: "Hostname", address: name },
        { type: "InternalIP", address: `192.168.1.${++octet}` },
      ],
    },
  });
  renew(name);
}

beforeEach(async () => {
  clock = new Clock();
  api = new MemoryApi();
  heard = new Set(["far", "near-1", "near-2", "near-3", "near-4", "other"]);
  const pools: Record<string, string> = { other: "b" };
  octet = 1;
  for (const name of heard) addNode(name, pools[name] ?? "a");
  stop = new AbortController();
  view = new LiveView({ api, client: api, clock, log: silentLog, namespace: "holdfast-system", signal: stop.signal });
  panel = new WitnessPanel({ view, api, clock, log: silentLog, clientCaPem: () => authority.certPem });
  void view.start();
  for (let round = 0; round < 50 && !view.isSynced; round++) await clock.pass(1);
  await live(15);
});
afterEach(() => stop.abort());

function renew(name: string): void {
  api.put(`/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${name}`, {
    metadata: { namespace: "kube-node-lease" },
    spec: { renewTime: new Date(clock.nowMs()).toISOString() },
  });
}

async function live(seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    if (second % 10 === 0) for (const name of heard) renew(name);
    await clock.pass(1_000);
    view.contact();
    await panel.round();
  }
}

const annotation = (name: string, key: string) => {
  const { annotations } = api.objects.get(`/api/v1/nodes/${name}`)!.metadata as {
    annotations?: Record<string, string>;
  };
  return annotations?.[key];
};
const question = (name: string) => readQuestion(annotation(name, QUESTION_ANNOTATION));
const asked = () =>
  [...api.objects.keys()]
    .filter((path) => path.startsWith("/api/v1/nodes/"))
    .map((path) => path.split("/").at(-1)!)
    .filter((name) => question(name) !== undefined);
const verdict = () => panel.verdictOf(view.facts("far")!);

async function answer(
  name: string,
  outcome: "heard" | "silent" | "not-tried",
  more: { as?: string; nonce?: string } = {},
): Promise<void> {
  const { as = name, nonce = question(name)?.nonce ?? "" } = more;
  const pair = issueClientCertificate(authority, {
    commonName: `system:node:${as}`,
    organizations: ["system:nodes"],
    nowMs: clock.nowMs(),
  });
  const nodes = question(name)!.nodes.map((node) => ({ name: node.name, outcome }));
  const jws = await signReport({ iss: as, nonce, nodes }, pair);
  await api.patch(`/api/v1/nodes/${name}`, "application/merge-patch+json", {
    metadata: { annotations: { [REPORT_ANNOTATION]: jws } },
  });
  // Signatures are checked off the clock.
  for (let round = 0; round < 6; round++) {
    await live(1);
    await Bun.sleep(1);
  }
}

async function cut(): Promise<void> {
  heard.delete("far");
  await live(45);
}

describe("the panel", () => {
  test("asks nobody while all are heard", () => {
    expect(asked()).toEqual([]);
  });

  test("asks neighbours of the same pool, a few, where the node can be reached; not the node itself", async () => {
    await cut();
    expect(asked()).toEqual(["near-1", "near-2", "near-3"]);
    expect(question("near-1")?.nodes).toEqual([{ name: "far", address: "192.168.1.2", port: 10_250 }]);
    expect(verdict()).toBe("unknown");
  });

  test("without the label for witnesses asks nobody", async () => {
    const node = api.objects.get("/api/v1/nodes/far")!;
    api.put("/api/v1/nodes/far", {
      ...node,
      metadata: { ...node.metadata, labels: { "holdfast.dev/pool": "a", [LABEL]: "hold" } },
    });
    await cut();
    expect(asked()).toEqual([]);
  });

  test("one who tried and heard nothing is enough; one who heard outweighs him", async () => {
    await cut();
    await answer("near-1", "not-tried");
    expect(verdict()).toBe("unknown");
    await answer("near-2", "silent");
    expect(verdict()).toBe("unheard");
    await answer("near-3", "heard");
    expect(verdict()).toBe("heard");
  });

  test("as many as the parameters say must have tried", async () => {
    api.put("/api/v1/namespaces/holdfast-system/configmaps/holdfast-guard", { data: { witnesses: "2" } });
    await live(2);
    await cut();
    await answer("near-1", "silent");
    expect(verdict()).toBe("unknown");
    await answer("near-2", "silent");
    expect(verdict()).toBe("unheard");
  });

  test("a report of another node, or to another question, counts as none", async () => {
    await cut();
    await answer("near-1", "silent", { as: "near-2" });
    expect(verdict()).toBe("unknown");
    await answer("near-1", "silent", { nonce: "0123456789abcdefghij" });
    expect(verdict()).toBe("unknown");
  });

  test("asks anew after a minute: what was heard then counts no more until it is said again", async () => {
    await cut();
    const first = question("near-1")!.nonce;
    await answer("near-1", "silent");
    expect(verdict()).toBe("unheard");
    await live(70);
    expect(question("near-1")!.nonce).not.toBe(first);
    expect(verdict()).toBe("unknown");
  });

  test("a place that is cut as a whole has no witnesses", async () => {
    heard.clear();
    await live(45);
    expect([asked(), verdict()]).toEqual([[], "unknown"]);
  });

  test("takes its questions back when the node is heard again", async () => {
    await cut();
    await answer("near-1", "silent");
    heard.add("far");
    await live(15);
    expect(asked()).toEqual([]);
    expect(annotation("near-1", REPORT_ANNOTATION)).toBeUndefined();
  });

  test("a mass cut: all of forty silent nodes get their turn, each witness goes through them all", async () => {
    const names = Array.from({ length: 40 }, (_, index) => `far-${String(index).padStart(2, "0")}`);
    for (const name of names) {
      addNode(name, "a");
      heard.add(name);
    }
    await live(15);
    for (const name of ["far", ...names]) heard.delete(name);
    await live(45);
    const about = new Map<string, Set<string>>([
      ["near-1", new Set()],
      ["near-2", new Set()],
    ]);
    const unheard = new Set<string>();
    // Four questions of sixteen are two more than a witness needs that forgets nobody.
    for (let turn = 0; turn < 5; turn++) {
      for (const [witness, seen] of about) {
        for (const { name } of question(witness)!.nodes) seen.add(name);
        await answer(witness, "silent");
      }
      for (const name of names) if (panel.verdictOf(view.facts(name)!) === "unheard") unheard.add(name);
      await live(15);
    }
    expect([...about.values()].map((seen) => seen.size)).toEqual([41, 41]);
    expect(unheard.size).toBe(40);
  });

  test("nodes that fall silent one by one take no question back that is being answered", async () => {
    addNode("far-1", "a");
    heard.add("far-1");
    await live(15);
    heard.delete("far");
    await live(10);
    heard.delete("far-1");
    await live(30);
    expect(question("near-1")!.nodes.map(({ name }) => name)).toEqual(["far"]);
    const { nonce } = question("near-1")!;
    await live(11);
    expect(view.node("far-1")!.hearing).toBe("silent");
    expect(question("near-1")!.nonce).toBe(nonce);
    await answer("near-1", "silent");
    expect(verdict()).toBe("unheard");
    await live(15);
    expect(question("near-1")!.nodes.map(({ name }) => name)).toContain("far-1");
  });

  test("witnesses that do not answer give their places to others", async () => {
    await cut();
    expect(asked()).not.toContain("near-4");
    await live(70);
    expect(asked()).toContain("near-4");
    await answer("near-4", "silent");
    expect(verdict()).toBe("unheard");
  });
});
