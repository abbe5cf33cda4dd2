/**
 * `holdfast get` against a daemon that keeps what clients were told.
 */
import { describe, expect, test } from "bun:test";
import { parse } from "yaml";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { columnsOf } from "../../src/cli/get-columns.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";
import { holdfast } from "./holdfast.ts";

const hourAgo = new Date(Date.now() - 3_600_000).toISOString().replace(/\.\d+/, "");
const meta = (name: string, more: object = {}) => ({ name, namespace: "shop", creationTimestamp: hourAgo, ...more });
const POD = {
  kind: "Pod",
  apiVersion: "v1",
  metadata: meta("web-0", { labels: { app: "web" } }),
  spec: { nodeName: "gw-1", containers: [{ name: "c", image: "i" }] },
  status: {
    phase: "Running",
    podIP: "10.1.0.7",
    containerStatuses: [{ name: "c", ready: true, restartCount: 2, image: "i", imageID: "i", state: { running: {} } }],
  },
};
const SECRET = {
  kind: "Secret",
  apiVersion: "v1",
  metadata: meta("s"),
  type: "Opaque",
  data: { password: "aHVudGVyMg==" },
};
const PROTOBUF = { Accept: "application/vnd.kubernetes.protobuf" };
const TABLE = { Accept: "application/json;as=Table;v=v1;g=meta.k8s.io" };

async function cut(apiServer: ApiServer, edge: Edge): Promise<void> {
  await apiServer.cut();
  await eventually(
    () => edge.client.get("/healthz"),
    ({ status }) => status === 503,
  );
}

async function world() {
  const other = { ...POD, metadata: meta("db-0", { namespace: "data" }), status: { phase: "Pending" } };
  const service = {
    kind: "Service",
    apiVersion: "v1",
    metadata: meta("web"),
    spec: { type: "ClusterIP", clusterIP: "10.0.0.9", ports: [{ port: 80, protocol: "TCP", targetPort: 8080 }] },
  };
  const apiServer = await startApiServer({
    objects: [POD, other, SECRET, service, configMap("a", { x: "1", y: "2" })],
  });
  const edge = await startEdge({ apiServer });
  const { client } = edge;
  await client.get("/api/v1/pods");
  await client.get("/api/v1/secrets", PROTOBUF);
  await client.get("/api/v1/services", PROTOBUF);
  await client.get("/api/v1/namespaces/shop/configmaps", TABLE);
  const get = (...args: readonly string[]) => holdfast("get", ...args, "--state-dir", edge.stateDir);
  return {
    apiServer,
    edge,
    get,
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

describe("holdfast get", () => {
  test("prints kubectl's columns with ages of now, online and while cut, and how old the copy is", async () => {
    await using bench = await world();
    const rows = [
      "NAMESPACE  NAME   READY  STATUS   RESTARTS  AGE",
      "data       db-0   0/1    Pending  0         60m",
      "shop       web-0  1/1    Running  2         60m",
    ];
    const online = await bench.get("po", "-A");
    expect(online).toMatchObject({ code: 0, stdout: `${rows.join("\n")}\n` });
    expect(online.stderr).toBe("# from 1 copy that the API server keeps up to date now\n");
    await cut(bench.apiServer, bench.edge);
    const offline = await bench.get("pods", "--all-namespaces");
    expect(offline).toMatchObject({ code: 0, stdout: `${rows.join("\n")}\n` });
    expect(offline.stderr).toMatch(/^# from a copy last heard of at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, .* ago\n$/);
    expect((await bench.get("pods", "-n", "shop", "-l", "app in (web)", "-o", "wide")).stdout).toBe(
      "NAME   READY  STATUS   RESTARTS  AGE  IP        NODE\nweb-0  1/1    Running  2         60m  10.1.0.7  gw-1\n",
    );
    expect((await bench.get("pods", "-n", "shop", "-l", "app!=web")).stdout).toBe("");
    expect((await bench.get("pod/web-0", "-n", "shop", "-o", "name")).stdout).toBe("pod/web-0\n");
  });

  test("reads what is kept as protobuf, and prints objects as YAML and JSON", async () => {
    await using bench = await world();
    await cut(bench.apiServer, bench.edge);
    expect((await bench.get("svc", "-n", "shop")).stdout).toBe(
      "NAME  TYPE       CLUSTER-IP  EXTERNAL-IP  PORT(S)  AGE\nweb   ClusterIP  10.0.0.9    <none>       80/TCP   60m\n",
    );
    const [yaml, json] = [
      await bench.get("svc", "web", "-n", "shop", "-o", "yaml"),
      await bench.get("svc", "-A", "-o", "json"),
    ];
    expect(parse(yaml.stdout)).toMatchObject({
      kind: "Service",
      apiVersion: "v1",
      spec: { ports: [{ port: 80, targetPort: 8080 }] },
    });
    expect(JSON.parse(json.stdout)).toMatchObject({ kind: "List", items: [{ kind: "Service" }] });
  });

  test("prints the cells of what is kept as a Table, with the age of now, and no object behind them", async () => {
    await using bench = await world();
    const { code, stdout } = await bench.get("cm", "-n", "shop");
    expect([code, stdout.split("\n")[0], stdout.split("\n")[1]?.slice(0, 8)]).toEqual([
      0,
      "NAME  DATA  AGE",
      "a     2 ",
    ]);
    expect(await bench.get("cm", "a", "-n", "shop", "-o", "yaml")).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringContaining("1 object left out: kept as a row of a Table alone"),
    });
  });

  test("a Secret's values are printed only when they are asked for", async () => {
    await using bench = await world();
    expect((await bench.get("secrets", "-n", "shop")).stdout).toContain("s     Opaque  1 ");
    const hidden = await bench.get("secret/s", "-n", "shop", "-o", "yaml");
    expect(parse(hidden.stdout)).toMatchObject({ data: { password: "(12 characters)" } });
    expect(hidden.stdout).not.toContain(SECRET.data.password);
    const shown = await bench.get("secret/s", "-n", "shop", "-o", "yaml", "--show-secrets");
    expect(parse(shown.stdout)).toMatchObject({ data: SECRET.data });
  });

  test("an object that a newer copy of all no longer holds is not shown", async () => {
    await using bench = await world();
    await bench.edge.client.get("/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb");
    await bench.edge.restart();
    bench.apiServer.remove("Pod", "shop", "web-0");
    await eventually(
      async () => (await bench.edge.client.get("/api/v1/pods")).json().items,
      (items) => items.length === 1,
    );
    await cut(bench.apiServer, bench.edge);
    expect((await bench.get("pods", "-A", "-o", "name")).stdout).toBe("pod/db-0\n");
  });

  test.each([
    [["widgets"], 1, "nothing of widgets is kept on this node"],
    [["pods", "none", "-n", "shop"], 1, 'pods "none" is not known in namespace "shop"'],
    [["pods"], 0, 'No pods known in namespace "default"'],
    [[], 2, "Name a type"],
    [["pods", "a", "b"], 2, "Unexpected argument 'b'"],
    [["pods", "-o", "xml"], 2, "Unknown output 'xml'"],
    [["pods", "-l", "a=b=c"], 2, "is no label selector"],
  ])("%p ends with %d and says %p", async (args, code, words) => {
    await using bench = await world();
    const result = await bench.get(...args);
    expect(result.code).toBe(code);
    expect(result.stderr).toContain(words);
  });

  test("without a daemon it says what to do", async () => {
    expect(await holdfast("get", "pods", "--state-dir", "/nonexistent")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("no daemon answers on"),
    });
  });
});

describe("the status of a pod is kubectl's", () => {
  const now = Date.now();
  const status = (pod: object) =>
    columnsOf("", "pods", false)
      .find(({ title }) => title === "STATUS")!
      .cell(pod, now);
  test.each([
    ["Pending", { status: { phase: "Pending" } }],
    ["Evicted", { status: { phase: "Failed", reason: "Evicted" } }],
    [
      "CrashLoopBackOff",
      { status: { phase: "Running", containerStatuses: [{ state: { waiting: { reason: "CrashLoopBackOff" } } }] } },
    ],
    [
      "Completed",
      {
        status: {
          phase: "Succeeded",
          containerStatuses: [{ state: { terminated: { reason: "Completed", exitCode: 0 } } }],
        },
      },
    ],
    ["ExitCode:3", { status: { phase: "Failed", containerStatuses: [{ state: { terminated: { exitCode: 3 } } }] } }],
    [
      "Signal:9",
      { status: { phase: "Failed", containerStatuses: [{ state: { terminated: { signal: 9, exitCode: 137 } } }] } },
    ],
    [
      "Init:0/2",
      {
        spec: { initContainers: [{}, {}] },
        status: { phase: "Pending", initContainerStatuses: [{ state: { running: {} } }] },
      },
    ],
    [
      "Init:ErrImagePull",
      {
        spec: { initContainers: [{}] },
        status: { phase: "Pending", initContainerStatuses: [{ state: { waiting: { reason: "ErrImagePull" } } }] },
      },
    ],
    ["Terminating", { metadata: { deletionTimestamp: "2026-11-29T12:00:00Z" }, status: { phase: "Running" } }],
    [
      "Unknown",
      { metadata: { deletionTimestamp: "2026-11-29T12:00:00Z" }, status: { phase: "Running", reason: "NodeLost" } },
    ],
  ])("%s", (word, pod) => expect(status(pod)).toBe(word));
});
