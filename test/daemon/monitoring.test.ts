import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { dashboard } from "../../scripts/dashboard.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { DaemonMetrics } from "../../src/daemon/metrics.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { wanBytes } from "../../src/uplink/wan.ts";
import { report, scope } from "../health/report.ts";
import { configMap, linkOf, startEdge } from "../support/edge.ts";

const folder = join(import.meta.dir, "..", "..", "docs", "monitoring");
const textOf = (metrics: DaemonMetrics) => metrics.registry.text();
const valueOf = (text: string, series: string) =>
  Number(
    text
      .split("\n")
      .find((line) => line.startsWith(`${series} `))
      ?.slice(series.length + 1),
  );

test("every metric that the dashboard and the alerts name is one of the daemon's", () => {
  const metrics = new DaemonMetrics();
  metrics.refresh(report());
  const declared = new Set(
    [...textOf(metrics).matchAll(/^# TYPE (\S+) (\w+)$/gm)].flatMap(([, name, kind]) =>
      kind === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!],
    ),
  );
  for (const file of ["dashboard.json", "alerts.yaml"]) {
    const named = [...readFileSync(join(folder, file), "utf8").matchAll(/\b(?:holdfast|process)_[a-z_]+[a-z]\b/g)].map(
      ([name]) => name,
    );
    expect(named.length).toBeGreaterThan(10);
    expect([file, named.filter((name) => !declared.has(name))]).toEqual([file, []]);
  }
});

test("the dashboard that lies there is the one that its table makes", () => {
  expect(JSON.parse(readFileSync(join(folder, "dashboard.json"), "utf8"))).toEqual(dashboard());
});

test("every condition's name in an alert, and each alert's next step, is there", () => {
  const { groups } = Bun.YAML.parse(readFileSync(join(folder, "alerts.yaml"), "utf8")) as any;
  for (const { alert, expr, annotations, labels } of groups[0].rules) {
    expect(alert).toMatch(/^Holdfast[A-Z]/);
    expect(expr.length).toBeGreaterThan(0);
    expect(["info", "warning", "critical"]).toContain(labels.severity);
    expect(annotations.description.length).toBeGreaterThan(10);
  }
});

test.skipIf(Bun.which("promtool") === null)(
  `promtool takes the rules${Bun.which("promtool") === null ? " (there is no promtool here)" : ""}`,
  () => {
    const { exitCode, stdout, stderr } = Bun.spawnSync(["promtool", "check", "rules", join(folder, "alerts.yaml")]);
    expect([exitCode, `${stdout}${stderr}`]).toEqual([0, expect.stringContaining("SUCCESS")]);
  },
);

test.skipIf(Bun.which("promtool") === null)("promtool takes the exposition", () => {
  const metrics = new DaemonMetrics();
  metrics.refresh(report());
  const { exitCode, stderr } = Bun.spawnSync(["promtool", "check", "metrics"], { stdin: Buffer.from(textOf(metrics)) });
  expect([exitCode, stderr.toString()]).toEqual([0, ""]);
});

test("what only grows is a counter, and never runs back", () => {
  const metrics = new Metrics();
  const counter = metrics.counter("c_total", "C.");
  for (const value of [3, 5, 1]) counter.reach(value);
  expect(metrics.text()).toContain("c_total 5\n");
  const daemon = new DaemonMetrics();
  daemon.refresh(report());
  const kinds = new Map([...textOf(daemon).matchAll(/^# TYPE (\S+) (\w+)$/gm)].map(([, name, kind]) => [name!, kind!]));
  for (const [name, kind] of kinds) expect([name, name.endsWith("_total")]).toEqual([name, kind === "counter"]);
});

test("age of copies, coverage, certificates and the horizon are read off the report", () => {
  const { nowMs } = report();
  const metrics = new DaemonMetrics();
  const pod = (comesBack: "yes" | "no", name: string) => ({
    namespace: "a",
    name,
    uid: name,
    comesBack,
    missing: [],
    unknown: [],
  });
  const coverage = {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "Coverage",
    atMs: 0,
    node: [],
    imagesFrom: "",
    pods: [pod("yes", "a"), pod("no", "b"), pod("yes", "c")],
  } as const;
  metrics.refresh(
    report({
      scopes: [
        scope({ lastContactMs: nowMs - 90_000 }),
        scope({ lastContactMs: nowMs - 10_000 }),
        scope({ resource: "widgets", lastContactMs: nowMs - 500_000 }),
        // Nobody watches it.
        scope({ resource: "secrets", lastContactMs: nowMs - 900_000, watchers: 0 }),
      ],
      coverage: coverage as never,
      horizon: { endsMs: nowMs + 5_000, because: "x", ends: [] },
    }),
  );
  const text = textOf(metrics);
  expect(valueOf(text, 'holdfast_copy_age_seconds{resource="pods"}')).toBe(90);
  expect(valueOf(text, 'holdfast_copy_age_seconds{resource="other"}')).toBe(500);
  expect(valueOf(text, 'holdfast_copy_age_seconds{resource="secrets"}')).toBe(0);
  expect(valueOf(text, 'holdfast_pods{comes_back="yes"}')).toBe(2);
  expect(valueOf(text, 'holdfast_pods{comes_back="no"}')).toBe(1);
  expect(valueOf(text, "holdfast_horizon_timestamp_seconds")).toBe(Math.floor((nowMs + 5_000) / 1_000));
  expect(valueOf(text, "process_open_fds")).toBeGreaterThan(2);
  expect(valueOf(text, "process_resident_memory_bytes")).toBeGreaterThan(1e6);
});

test("seconds offline are counted through cuts, the one that lasts among them", () => {
  const metrics = new DaemonMetrics();
  const { nowMs } = report();
  const offline = (sinceMs: number) => report({ link: { state: "offline", sinceMs, servers: [] } });
  metrics.linkChanged(false, 1_000);
  metrics.refresh(offline(nowMs - 5_000));
  expect(valueOf(textOf(metrics), "holdfast_offline_seconds_total")).toBe(5);
  metrics.linkChanged(true, 9_000);
  metrics.refresh(report());
  expect(valueOf(textOf(metrics), "holdfast_offline_seconds_total")).toBe(8);
  metrics.linkChanged(false, 20_000);
  metrics.refresh(offline(nowMs - 2_000));
  expect(valueOf(textOf(metrics), "holdfast_offline_seconds_total")).toBe(10);
});

test("bytes over the uplink are counted each way, by requests, writes and watches, and not what copies answer", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("settings", { text: "x".repeat(20_000) })] });
  await using edge = await startEdge({ apiServer });
  const counted = async (act: () => Promise<unknown>) => {
    const before = { ...wanBytes };
    await act();
    return { sent: wanBytes.sent - before.sent, received: wanBytes.received - before.received };
  };
  const target = "/api/v1/namespaces/shop/configmaps";
  const read = await counted(() => edge.client.get(`${target}/settings`));
  expect(read.received).toBeGreaterThan(20_000);
  expect(read.received).toBeLessThan(40_000);
  expect(read.sent).toBeGreaterThan(50);
  expect(read.sent).toBeLessThan(5_000);
  const body = JSON.stringify(configMap("written", { text: "y".repeat(10_000) }));
  const wrote = await counted(() =>
    edge.client.request("POST", target, { headers: { "Content-Type": "application/json" }, body }),
  );
  expect(wrote.sent).toBeGreaterThan(10_000);
  const { metadata } = (await edge.client.get(target)).json();
  const watch = await edge.client.watch(`${target}?watch=true&resourceVersion=${metadata.resourceVersion}`);
  const heard = await counted(async () => {
    apiServer.put(configMap("settings", { text: "z".repeat(30_000) }));
    await watch.until((events) => events.length > 0);
  });
  expect(heard.received).toBeGreaterThan(30_000);
  watch.close();
  await linkOf(apiServer, edge.client).cut();
  const cut = await counted(() => edge.client.get(`${target}/settings`));
  expect(cut.received).toBe(0);
});
