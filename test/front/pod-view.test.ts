import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { askStatus } from "../../src/cli/ask-status.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Client } from "../support/client.ts";
import { linkOf, startEdge, type Edge } from "../support/edge.ts";

const NODE = "gw-1";
/** client-go's, of a kubelet. */
const KUBELETS_ACCEPT = { Accept: "application/vnd.kubernetes.protobuf,application/json" };
const ROOT_CA = "/api/v1/namespaces/shop/configmaps/kube-root-ca.crt";
const BY_NAME = "/api/v1/namespaces/shop/configmaps?fieldSelector=metadata.name%3Dkube-root-ca.crt";

/** A node behind Holdfast, whose pods come through it too. */
describe("kubelet's view of the pods' way", () => {
  let apiServer: ApiServer;
  let edge: Edge;
  let kubelet: Client;
  let other: Client;
  let ours: string;
  const config = "podAccess: {serviceAddress: 10.96.0.1, listen: 169.254.102.68:10268}\n";

  beforeAll(async () => {
    apiServer = await startApiServer({
      objects: [
        {
          kind: "Service",
          apiVersion: "v1",
          metadata: { name: "kubernetes", namespace: "default" },
          spec: { clusterIP: "10.96.0.1", ports: [{ name: "https", port: 443 }] },
        },
        {
          kind: "ConfigMap",
          apiVersion: "v1",
          metadata: { name: "kube-root-ca.crt", namespace: "shop" },
          data: { "ca.crt": "THEIRS\n" },
        },
      ] as never,
    });
    const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
    const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, keyPair });
    edge = await startEdge({ apiServer, kubeconfig, config });
    kubelet = edge.clientWith(keyPair);
    apiServer.addToken("shop-token", { name: "system:serviceaccount:shop:default", groups: [] });
    other = edge.clientWith({ token: "shop-token" });
    ours = readFileSync(join(edge.stateDir, "pki/local-ca.crt"), "utf8");
  });
  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await apiServer[Symbol.asyncDispose]();
  });
  type Answer = { body: Buffer | Uint8Array };
  const json = ({ body }: Answer) => JSON.parse(Buffer.from(body).toString());
  const portOf = (list: Answer) => json(list).items[0].spec.ports[0].port;

  test("its lists, objects and watches show it, online and while cut; nobody else's do, and the copies keep the truth", async () => {
    const services = "/api/v1/services";
    expect(portOf(await kubelet.get(services, KUBELETS_ACCEPT))).toBe(10_268);
    expect(json(await kubelet.get(ROOT_CA, KUBELETS_ACCEPT)).data["ca.crt"]).toBe(`THEIRS\n${ours}`);
    const list = await kubelet.get(BY_NAME, KUBELETS_ACCEPT);
    const { resourceVersion } = json(list).metadata;
    const watch = await kubelet.watch(`${BY_NAME}&watch=true&resourceVersion=${resourceVersion}`, KUBELETS_ACCEPT);
    apiServer.edit("ConfigMap", "shop", "kube-root-ca.crt", (one) => ({ ...one, data: { "ca.crt": "NEXT\n" } }));
    await watch.until((events) => events.length > 0);
    expect(watch.events[0]!.object.data).toEqual({ "ca.crt": `NEXT\n${ours}` });
    watch.close();
    expect(portOf(await other.get(services))).toBe(443);
    expect(json(await other.get(ROOT_CA)).data["ca.crt"]).toBe("NEXT\n");

    const link = linkOf(apiServer, kubelet);
    await link.cut();
    expect(portOf(await kubelet.get(services, KUBELETS_ACCEPT))).toBe(10_268);
    expect(json(await kubelet.get(BY_NAME, KUBELETS_ACCEPT)).items[0].data["ca.crt"]).toBe(`NEXT\n${ours}`);
    expect(portOf(await other.get(services))).toBe(443);
    await edge.restart();
    expect(portOf(await kubelet.get(services, KUBELETS_ACCEPT))).toBe(10_268);
    await link.heal();
  });

  test("its streaming list is changed event by event", async () => {
    const target = `/api/v1/services?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;
    const watch = await kubelet.watch(target, KUBELETS_ACCEPT);
    await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));
    expect(watch.events.map(({ type, object }) => [type, object.spec?.ports[0].port])).toEqual([
      ["ADDED", 10_268],
      ["BOOKMARK", undefined],
    ]);
    watch.close();
  });

  test("what it writes goes up as it wrote it", async () => {
    const before = apiServer.object("ConfigMap", "shop", "kube-root-ca.crt");
    const read = await kubelet.get("/api/v1/namespaces/shop/secrets", KUBELETS_ACCEPT);
    expect(read.status).toBe(200);
    expect(apiServer.object("ConfigMap", "shop", "kube-root-ca.crt")).toEqual(before!);
  });

  test("where the pods' address is missing kubelet is served all the same, and a condition says so", async () => {
    const answer = await askStatus(join(edge.stateDir, "admin.sock"));
    if (!answer.isFine) throw new Error(answer.problem);
    expect(answer.report.conditions.map(({ type, next }) => [type, next])).toContainEqual([
      "PodsCannotReach",
      "See: systemctl status holdfast-pods",
    ]);
  });
});
