import { describe, expect, test } from "bun:test";
import { isShownOtherwise, shownToKubelet, type PodAccess } from "../../src/kube/pod-access.ts";

const access: PodAccess = { serviceAddress: "10.96.0.1", port: 10_268, caPem: "OURS\n" };
const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const shown = (value: unknown, resource: string) =>
  JSON.parse(Buffer.from(shownToKubelet(bytes(value), resource, access)).toString());

const service = {
  kind: "Service",
  metadata: { name: "kubernetes", namespace: "default", resourceVersion: "5", unknown: { a: 1 } },
  spec: { clusterIP: "10.96.0.1", ports: [{ name: "https", port: 443, targetPort: 6443 }] },
};
const rootCa = { metadata: { name: "kube-root-ca.crt", namespace: "shop" }, data: { "ca.crt": "THEIRS\n" } };
/** As kubeadm 1.37 writes it. */
const KUBECONFIG = `apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: https://10.0.0.2:6443
  name: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token`;
const proxy = (kubeconfig = KUBECONFIG, namespace = "kube-system") => ({
  metadata: { name: "kube-proxy", namespace },
  data: { "config.conf": "mode: nftables", "kubeconfig.conf": kubeconfig },
});

describe("what kubelet is shown of the pods' way", () => {
  test("the Service's port alone is another one", () => {
    expect(shown(service, "services")).toEqual({
      ...service,
      spec: { clusterIP: "10.96.0.1", ports: [{ name: "https", port: 10_268, targetPort: 6443 }] },
    });
  });

  test("the cluster's CA stays, ours stands behind it", () => {
    expect(shown(rootCa, "configmaps").data["ca.crt"]).toBe("THEIRS\nOURS\n");
  });

  test("kube-proxy's kubeconfig leads to the Service's address, and nothing else of it changes", () => {
    expect(shown(proxy(), "configmaps").data).toEqual({
      "config.conf": "mode: nftables",
      "kubeconfig.conf": KUBECONFIG.replace("https://10.0.0.2:6443", "https://10.96.0.1:10268"),
    });
  });

  test("a watch's event is changed inside, its line end stays", () => {
    const line = Buffer.concat([bytes({ type: "MODIFIED", object: rootCa }), Buffer.from("\n")]);
    const text = Buffer.from(shownToKubelet(line, "configmaps", access)).toString();
    expect(text.endsWith("}\n")).toBe(true);
    expect(JSON.parse(text)).toEqual({
      type: "MODIFIED",
      object: { ...rootCa, data: { "ca.crt": "THEIRS\nOURS\n" } },
    });
  });

  test.each<[string, object, string]>([
    ["another Service of that name", { ...service, metadata: { ...service.metadata, namespace: "shop" } }, "services"],
    ["a Service without that port", { ...service, spec: { ports: [{ name: "http", port: 80 }] } }, "services"],
    ["another ConfigMap", { metadata: { name: "kubernetes" }, data: { "ca.crt": "x" } }, "configmaps"],
    ["a kube-proxy of somebody's own", proxy(KUBECONFIG, "shop"), "configmaps"],
    ["a kube-proxy that trusts another CA", proxy(KUBECONFIG.replace(/\/var\S+ca.crt/, "/etc/ca.crt")), "configmaps"],
    ["a deletion's bare name", { type: "DELETED", object: { metadata: { name: "kube-proxy" } } }, "configmaps"],
    ["a Status", { kind: "Status", details: { name: "kube-proxy" } }, "configmaps"],
  ])("%s is the same, byte for byte", (_, value, resource) => {
    const given = bytes(value);
    expect(shownToKubelet(given, resource, access)).toBe(given);
  });

  test("what is no JSON goes by", () => {
    const given = Buffer.from('half of "kube-proxy"');
    expect(shownToKubelet(given, "configmaps", access)).toBe(given);
  });

  test("only Services and ConfigMaps of the core group", () => {
    expect(isShownOtherwise("", "services") && isShownOtherwise("", "configmaps")).toBe(true);
    expect(isShownOtherwise("", "secrets") || isShownOtherwise("serving.knative.dev", "services")).toBe(false);
  });
});
