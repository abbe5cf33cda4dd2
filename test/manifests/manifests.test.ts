/**
 * What `holdfast manifests` prints: complete, least in rights, the same in all
 * three forms, and in the words of the oldest Kubernetes it is for.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { writeTree } from "./support.ts";
import { manifests } from "../../src/manifests/manifests.ts";
import type { KubernetesObject } from "../../src/manifests/object.ts";
import { defaultOptions, type ManifestOptions } from "../../src/manifests/options.ts";
import { asHelm, asKustomize, asYaml } from "../../src/manifests/print.ts";

const OPTIONS = defaultOptions("1.2.3");
const helm = Bun.which("helm");
const kubectl = Bun.which("kubectl");

function objects(options: Partial<ManifestOptions> = {}): KubernetesObject[] {
  return Object.values(manifests({ ...OPTIONS, ...options })).flat();
}

function parsed(yaml: string): Map<string, unknown> {
  const documents = parseAllDocuments(yaml).map((document) => document.toJS() as KubernetesObject | null);
  return new Map(documents.filter((object) => object !== null).map((object) => [identity(object), object]));
}

function identity({ kind, metadata }: KubernetesObject): string {
  return `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;
}

function find(kind: string, options: Partial<ManifestOptions> = {}): KubernetesObject[] {
  return objects(options).filter((object) => object.kind === kind);
}

/** All CEL of an object, wherever it stands. */
function expressions(value: unknown, key = ""): string[] {
  if (typeof value === "string") return key === "expression" || key === "messageExpression" ? [value] : [];
  if (Array.isArray(value)) return value.flatMap((one) => expressions(one));
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, one]) => expressions(one, name));
}

describe("the objects", () => {
  test("are each there once, and those alone with --policies-only that need no pod", () => {
    const names = objects().map(identity);
    expect(new Set(names).size).toBe(names.length);
    const kinds = new Set(
      find("", {})
        .concat(objects({ isPoliciesOnly: true }))
        .map(({ kind }) => kind),
    );
    expect([...kinds].toSorted()).toEqual([
      "ConfigMap",
      "Namespace",
      "ValidatingAdmissionPolicy",
      "ValidatingAdmissionPolicyBinding",
    ]);
  });

  test("parameters come before the policies that bind to them, webhooks last", () => {
    const kinds = objects().map(({ kind }) => kind);
    expect(kinds.indexOf("ConfigMap")).toBeLessThan(kinds.indexOf("ValidatingAdmissionPolicyBinding"));
    expect(kinds.at(-1)).toBe("MutatingWebhookConfiguration");
  });

  test("no webhook fails closed: the taint manager forgets what waits, from nodes that nobody holds too", () => {
    const webhooks = [...find("ValidatingWebhookConfiguration"), ...find("MutatingWebhookConfiguration")].flatMap(
      (one) => (one as KubernetesObject & { webhooks: { name: string; failurePolicy: string }[] }).webhooks,
    );
    expect(webhooks.length).toBeGreaterThan(4);
    expect(webhooks.filter(({ failurePolicy }) => failurePolicy !== "Ignore").map(({ name }) => name)).toEqual([]);
  });

  test("policies deny and never mutate, fail closed, and let kubelets pass", () => {
    const policies = find("ValidatingAdmissionPolicy");
    expect(policies.length).toBeGreaterThan(4);
    for (const { spec, metadata } of policies as (KubernetesObject & { spec: { failurePolicy: string } })[]) {
      expect({ name: metadata.name, policy: spec.failurePolicy }).toEqual({ name: metadata.name, policy: "Fail" });
    }
    for (const { spec } of find("ValidatingAdmissionPolicyBinding") as (KubernetesObject & {
      spec: { validationActions: string[]; paramRef?: { parameterNotFoundAction: string } };
    })[]) {
      expect(spec.validationActions).toContain("Deny");
      // Deny would refuse every write to every node once the ConfigMap is gone.
      expect(spec.paramRef?.parameterNotFoundAction ?? "Allow").toBe("Allow");
    }
  });

  test("the guard has no right beyond its work", () => {
    const rules = [...find("ClusterRole"), ...find("Role")].flatMap((role) => role["rules"] as object[]) as {
      apiGroups: string[];
      resources: string[];
      resourceNames?: string[];
      verbs: string[];
    }[];
    const all = rules.flatMap(({ verbs, resources }) => [...verbs, ...resources]);
    expect(all).not.toContain("*");
    const writes = rules.filter(({ verbs }) => verbs.some((verb) => !["get", "list", "watch"].includes(verb)));
    expect(
      writes
        .flatMap(({ resources, verbs, resourceNames }) =>
          resources.map((resource) => `${resource} ${verbs.join(",")} ${resourceNames?.join(",") ?? "any"}`),
        )
        .toSorted(),
    ).toEqual([
      "configmaps create any",
      "events create,patch,list any",
      "leases create any",
      "leases get,update,patch holdfast-guard",
      "mutatingwebhookconfigurations get,patch holdfast-guard",
      "nodes get,list,watch,patch any",
      "nodes/status patch any",
      "pods/status patch any",
      "secrets create any",
      "secrets get,update,patch holdfast-guard-tls",
      "validatingwebhookconfigurations get,patch holdfast-guard",
    ]);
    expect(rules.some(({ verbs, resources }) => resources.includes("secrets") && verbs.includes("list"))).toBe(false);
  });

  test("approving is a right of its own, given when asked for", () => {
    const approves = (options: Partial<ManifestOptions>) =>
      JSON.stringify(find("ClusterRole", options)).includes('"approve"');
    expect([approves({}), approves({ approvesCsrs: true })]).toEqual([false, true]);
  });

  test("every webhook: two seconds, no side effects, never kube-system nor its own namespace", () => {
    const configurations = [
      ...find("ValidatingWebhookConfiguration", { namespace: "elsewhere" }),
      ...find("MutatingWebhookConfiguration", { namespace: "elsewhere" }),
    ];
    const webhooks = configurations.flatMap((one) => one["webhooks"] as Record<string, unknown>[]);
    expect(webhooks.length).toBe(6);
    for (const webhook of webhooks) {
      expect(webhook).toMatchObject({ timeoutSeconds: 2, sideEffects: "None" });
      expect(JSON.stringify(webhook["namespaceSelector"])).toContain('["kube-system","elsewhere"]');
      expect((webhook["clientConfig"] as { service: { namespace: string } }).service.namespace).toBe("elsewhere");
    }
  });

  test("the pods are held to the restricted standard", () => {
    const [deployment] = find("Deployment");
    expect(JSON.stringify(deployment)).toContain('"readOnlyRootFilesystem":true');
    expect(
      (find("Namespace")[0]!.metadata.labels as Record<string, string>)["pod-security.kubernetes.io/enforce"],
    ).toBe("restricted");
  });

  test("a name with a quote is refused, not rendered", () => {
    expect(() => objects({ controllers: ["o'brien"] })).not.toThrow();
    expect(() => objects({ controllers: ["smörgås"] })).toThrow(RangeError);
    const conditions = JSON.stringify(find("ValidatingWebhookConfiguration", { controllers: ["o'brien"] }));
    expect(conditions).toContain(String.raw`'o\\'brien'`);
  });
});

/**
 * Functions and macros that stand in our CEL, with the Kubernetes minor from
 * which admission knows them (k8s.io/apiserver pkg/cel/environment/base.go).
 */
const CEL_SINCE: Readonly<Record<string, number>> = {
  has: 23,
  exists: 23,
  all: 23,
  filter: 23,
  map: 23,
  size: 23,
  matches: 23,
  startsWith: 23,
  timestamp: 23,
  duration: 23,
  split: 23,
  trim: 23,
};
/** What makes up the objects beside it, with the minor of its v1. */
const OLDEST = 30;

test("CEL of 1.30: no function is younger than the oldest Kubernetes we are for", () => {
  const cel = objects().flatMap((object) => expressions(object));
  expect(cel.length).toBeGreaterThan(40);
  const called = new Set(
    // Strings say nothing about functions.
    cel.flatMap((one) =>
      [...one.replaceAll(/'(?:[^'\\]|\\.)*'/g, "''").matchAll(/([A-Za-z_]+)\(/g)].map(([, name]) => name!),
    ),
  );
  for (const name of called)
    expect({ name, since: CEL_SINCE[name] ?? Infinity }).toEqual({
      name,
      since: Math.min(CEL_SINCE[name] ?? Infinity, OLDEST),
    });
  expect(cel.filter((one) => /\?\.|\boptional\.|\?\[/.test(one))).toEqual([]);
});

test("API versions of 1.30: every kind is rendered in one that is served from 1.30 to 1.37", () => {
  const versions = new Set(objects({ approvesCsrs: true }).map(({ apiVersion }) => apiVersion));
  expect([...versions].toSorted()).toEqual([
    "admissionregistration.k8s.io/v1",
    "apps/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "v1",
  ]);
});

const CHOICES: readonly {
  readonly name: string;
  readonly options: Partial<ManifestOptions>;
  readonly values: readonly string[];
}[] = [
  { name: "defaults", options: {}, values: [] },
  { name: "policies only", options: { isPoliciesOnly: true }, values: ["policiesOnly=true"] },
  { name: "approver", options: { approvesCsrs: true }, values: ["approveCsrs=true"] },
  { name: "cert-manager", options: { usesCertManager: true, replicas: 3 }, values: ["certManager=true", "replicas=3"] },
  {
    name: "both, bounded, elsewhere",
    options: {
      approvesCsrs: true,
      usesCertManager: true,
      bound: "72h",
      namespace: "elsewhere",
      image: "registry.example/a:b",
    },
    values: ["approveCsrs=true", "certManager=true", "bound=72h", "image=registry.example/a:b"],
  },
  { name: "more controllers", options: { controllers: ["a:b", "c d"] }, values: ["controllers={a:b,c d}"] },
];

function template(chart: string, args: readonly string[], values: readonly string[], version = "1.37.2") {
  const set = values.flatMap((value) => ["--set", value]);
  return Bun.spawnSync([helm!, "template", "guard", chart, "--kube-version", version, ...args, ...set]);
}

describe("three forms", () => {
  let directory: string;
  beforeAll(() => (directory = mkdtempSync(join(tmpdir(), "holdfast-manifests-"))));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  test("YAML reads back as the objects", () => {
    expect([...parsed(asYaml(OPTIONS)).values()]).toEqual(JSON.parse(JSON.stringify(objects())));
  });

  test("a kustomize base lists all of its files, and they hold all objects", () => {
    const files = asKustomize(OPTIONS);
    const { resources } = parseAllDocuments(files.get("kustomization.yaml")!)[0]!.toJS() as { resources: string[] };
    expect(resources.toSorted()).toEqual([...files.keys()].filter((path) => path !== "kustomization.yaml").toSorted());
    expect(parsed(resources.map((path) => files.get(path)!).join(""))).toEqual(parsed(asYaml(OPTIONS)));
  });

  test("no mark is left in a chart, and its values are what its schema allows", () => {
    const chart = asHelm("1.2.3");
    for (const [path, text] of chart)
      expect({ path, hasMark: /holdfast-mark|987654321/.test(text) }).toEqual({ path, hasMark: false });
    const { properties } = JSON.parse(chart.get("values.schema.json")!) as { properties: Record<string, object> };
    const values = parseAllDocuments(chart.get("values.yaml")!)[0]!.toJS() as object;
    expect(Object.keys(values).filter((name) => properties[name] === undefined)).toEqual([]);
  });

  describe.skipIf(helm === null)(`helm${helm === null ? " [skipped: helm is not installed]" : ""}`, () => {
    test.each([...CHOICES])("renders what manifests prints: $name", ({ name, options, values }) => {
      const chart = join(directory, name.replaceAll(/\W/g, "-"));
      writeTree(chart, asHelm("1.2.3"));
      const namespace = options.namespace ?? OPTIONS.namespace;
      const { stdout, stderr, exitCode } = template(chart, ["-n", namespace], values);
      expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
      const printed = parsed(asYaml({ ...OPTIONS, ...options }));
      printed.delete(`Namespace /${namespace}`);
      const rendered = parsed(stdout.toString());
      expect([...rendered.keys()].toSorted()).toEqual([...printed.keys()].toSorted());
      for (const [id, object] of printed) expect({ id, object: rendered.get(id) }).toEqual({ id, object });
    });

    test("renders for 1.30 to 1.37, and for none before", () => {
      const chart = join(directory, "versions");
      writeTree(chart, asHelm("1.2.3"));
      const accepted = Array.from({ length: 10 }, (_, index) => 28 + index).filter(
        (minor) => template(chart, [], [], `1.${minor}.0`).exitCode === 0,
      );
      expect(accepted).toEqual([30, 31, 32, 33, 34, 35, 36, 37]);
    });

    test("refuses values that the schema does not know", () => {
      const chart = join(directory, "schema");
      writeTree(chart, asHelm("1.2.3"));
      for (const value of ["bound=3 days", "replicas=0", "colour=red", "controllers={o'brien}"]) {
        const { exitCode, stderr } = template(chart, [], [value]);
        expect({ value, exitCode, stderr: stderr.toString() }).toEqual({
          value,
          exitCode: 1,
          stderr: expect.stringContaining("schema"),
        });
      }
    });
  });

  test.skipIf(kubectl === null)(
    `kubectl kustomize${kubectl === null ? " [skipped: kubectl is not installed]" : ""}`,
    () => {
      const base = join(directory, "base");
      writeTree(base, asKustomize(OPTIONS));
      const { stdout } = Bun.spawnSync([kubectl!, "kustomize", base]);
      expect(parsed(stdout.toString())).toEqual(parsed(asYaml(OPTIONS)));
    },
  );
});
