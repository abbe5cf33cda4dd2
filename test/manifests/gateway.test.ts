/**
 * What `holdfast manifests --gateway` prints: least in rights, and the same in
 * all three forms.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments, parse } from "yaml";
import { gatewayManifests, type GatewayManifestOptions } from "../../src/manifests/gateway.ts";
import {
  defaultGatewayOptions,
  gatewayAsHelm,
  gatewayAsKustomize,
  gatewayAsYaml,
} from "../../src/manifests/gateway-print.ts";
import type { KubernetesObject } from "../../src/manifests/object.ts";
import { holdfast } from "../cli/holdfast.ts";
import { writeTree } from "./support.ts";

const OPTIONS: GatewayManifestOptions = { ...defaultGatewayOptions("1.2.3"), names: ["gateway.example"] };
const helm = Bun.which("helm");
const kubectl = Bun.which("kubectl");

const objects = (options: Partial<GatewayManifestOptions> = {}): KubernetesObject[] =>
  Object.values(gatewayManifests({ ...OPTIONS, ...options })).flat();
const identity = ({ kind, metadata }: KubernetesObject) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;

function parsed(yaml: string): Map<string, unknown> {
  const all = parseAllDocuments(yaml).map((document) => document.toJS() as KubernetesObject | null);
  return new Map(all.filter((object) => object !== null).map((object) => [identity(object), object]));
}

describe("the objects", () => {
  test("the gateway has no right beyond its work: it reads no Secret, no pod, and writes no node", () => {
    const rules = objects()
      .filter(({ kind }) => kind === "Role" || kind === "ClusterRole")
      .flatMap(({ metadata, ...role }) =>
        (role["rules"] as { resources: string[]; verbs: string[]; resourceNames?: string[] }[]).map(
          ({ resources, verbs, resourceNames }) =>
            `${metadata.namespace ?? "everywhere"}: ${resources.join()} ${verbs.join()} ${resourceNames?.join() ?? "any"}`,
        ),
      );
    expect(rules).toEqual([
      "everywhere: nodes list,watch any",
      "holdfast-system: endpointslices list,watch,create,patch any",
      "holdfast-system: configmaps create any",
      "holdfast-system: configmaps get,patch holdfast-gateway-ports",
      "holdfast-system: services create,patch any",
      "kube-system: configmaps get extension-apiserver-authentication",
    ]);
  });

  test("the pods are held to the restricted standard and get their own address", () => {
    const text = JSON.stringify(objects().find(({ kind }) => kind === "Deployment"));
    for (const part of [
      '"readOnlyRootFilesystem":true',
      '"runAsNonRoot":true',
      '"POD_IP"',
      '"--names=gateway.example"',
    ])
      expect(text).toContain(part);
    expect(JSON.stringify(objects()[0])).toContain('"pod-security.kubernetes.io/enforce":"restricted"');
  });

  test("only other replicas reach the handover, and only agents' and nodes' ports are open to all", () => {
    const policy = objects().find(({ kind }) => kind === "NetworkPolicy") as any;
    const [open, own] = policy.spec.ingress;
    expect(open.ports.map(({ port }: { port: unknown }) => port)).toEqual(["agents", "health", 20_000]);
    expect(own).toMatchObject({ from: [{ podSelector: policy.spec.podSelector }], ports: [{ port: "handover" }] });
  });

  test("each is there once, cert-manager's only when asked for", () => {
    const names = objects({ usesCertManager: true }).map(identity);
    expect(new Set(names).size).toBe(names.length);
    expect(names.filter((name) => name.startsWith("Certificate")).length).toBe(1);
    expect(objects().map(identity).join()).not.toContain("Certificate");
  });
});

describe("three forms", () => {
  let directory: string;
  beforeAll(() => void (directory = mkdtempSync(join(tmpdir(), "gateway-manifests-"))));
  afterAll(() => rmSync(directory, { recursive: true }));

  test("kustomize has in its files what yaml has in one stream", () => {
    const tree = gatewayAsKustomize(OPTIONS);
    const { resources } = parse(tree.get("kustomization.yaml")!) as { resources: string[] };
    const together = resources.map((file) => tree.get(file)!).join("");
    expect(parsed(together)).toEqual(parsed(gatewayAsYaml(OPTIONS)));
  });

  test("the chart's templates, with their values put in by hand, are the same objects", () => {
    const tree = gatewayAsHelm("1.2.3");
    for (const usesCertManager of [false, true]) {
      const rendered = ["access", "gateway"]
        .map((file) => tree.get(`templates/${file}.yaml`)!)
        .join("")
        .replaceAll(/\{\{- if \.Values\.certManager \}\}\n([^]*?)\{\{- end \}\}\n/g, usesCertManager ? "$1" : "")
        .replaceAll("{{ .Release.Namespace }}", "edge")
        .replaceAll("{{ .Values.image | quote }}", '"registry/holdfast:2"')
        .replaceAll("{{ .Values.replicas }}", "3")
        .replaceAll('{{ join "," .Values.names }}', "a.example,b.example")
        .replaceAll("{{ toJson .Values.names }}", '["a.example","b.example"]')
        .replaceAll("{{ .Values.mode }}", "port")
        .replaceAll("{{ .Values.nodes }}", "pool=edge");
      expect(rendered).not.toContain("{{");
      expect(rendered).not.toContain("mark");
      const expected = parsed(
        gatewayAsYaml({
          namespace: "edge",
          image: "registry/holdfast:2",
          replicas: 3,
          names: ["a.example", "b.example"],
          mode: "port",
          nodes: "pool=edge",
          usesCertManager,
        }),
      );
      expected.delete("Namespace /edge");
      expect(parsed(rendered)).toEqual(expected);
    }
  });

  test.skipIf(helm === null)("helm renders them as yaml has them", () => {
    const chart = join(directory, "chart");
    writeTree(chart, gatewayAsHelm("1.2.3"));
    const done = Bun.spawnSync([
      helm!,
      "template",
      "x",
      chart,
      "-n",
      OPTIONS.namespace,
      "--set",
      "names={gateway.example}",
    ]);
    expect(done.stderr.toString()).toBe("");
    const expected = parsed(gatewayAsYaml(OPTIONS));
    expected.delete(`Namespace /${OPTIONS.namespace}`);
    expect(parsed(done.stdout.toString())).toEqual(expected);
  });

  test.skipIf(kubectl === null)("kubectl kustomize builds the base", () => {
    const base = join(directory, "base");
    writeTree(base, gatewayAsKustomize(OPTIONS));
    const done = Bun.spawnSync([kubectl!, "kustomize", base]);
    expect(parsed(done.stdout.toString())).toEqual(parsed(gatewayAsYaml(OPTIONS)));
  });
});

describe("the command", () => {
  test.each([
    [["--gateway"], "--gateway needs --names"],
    [["--gateway", "--names=gw", "--bound=1h"], "--bound does not go with --gateway"],
    [["--names=gw"], "--names goes with --gateway"],
    [["--gateway", "--names=a b"], "--names: expected host names"],
    [["--gateway", "--names=gw", "--mode=vpn"], "--mode"],
    [["--gateway", "--names=gw", "--nodes=a in"], "--nodes: expected a label selector"],
  ])("%j is refused by its flag", async (args, words) => {
    const { code, stderr } = await holdfast("manifests", ...args);
    expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
  });

  test("prints the stream", async () => {
    const { code, stdout } = await holdfast("manifests", "--gateway", "--names=gw.example", "--mode=port");
    expect(code).toBe(0);
    expect(stdout).toContain("--mode=port");
  });
});
