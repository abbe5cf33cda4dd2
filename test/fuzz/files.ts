/**
 * Files and bodies that people and programs hand us: whatever stands in them,
 * the answer is a value or an error of ours, in words that name no secret.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { readKubeconfig } from "../../src/config/kubeconfig-content.ts";
import { KubeconfigError } from "../../src/config/kubeconfig-sheet.ts";
import { ConfigError } from "../../src/config/config-error.ts";
import { fileOf } from "../../src/config/config-file.ts";
import { readReview, ReviewError, reviewAnswer } from "../../src/guard/admission-review.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { bent, oddText } from "./bent.ts";
import type { Draw } from "./random.ts";

const SECRET = "marker-5d1c-marker-5d1c";
const cluster = mintCluster("fuzz");

function kubeconfigText(draw: Draw): string {
  const user = draw.of([
    { token: SECRET },
    { "client-key-data": btoa(SECRET), "client-certificate-data": btoa(cluster.ca) },
  ]);
  return Bun.YAML.stringify(
    {
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "c", cluster: { server: "https://127.0.0.1:6443", "certificate-authority-data": btoa(cluster.ca) } },
      ],
      users: [{ name: "u", user }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
      "current-context": draw.of(["x", "y", oddText(draw)]),
    },
    undefined,
    2,
  );
}

/** @returns what is wrong, in words. */
export function kubeconfig(draw: Draw): string | undefined {
  const text = Buffer.from(bent(draw, Buffer.from(kubeconfigText(draw)))).toString();
  try {
    readKubeconfig("/fuzz", (path) => {
      if (path === "/fuzz") return text;
      throw Object.assign(new Error("no such file"), { code: "ENOENT" });
    });
  } catch (error) {
    if (!(error instanceof KubeconfigError)) return `threw ${String(error)} for ${text}`;
    const told = `${error.message} ${String(error.cause ?? "")}`;
    if (told.includes(SECRET) || told.includes(btoa(SECRET).slice(0, 24))) return `told a secret: ${told}`;
  }
  return undefined;
}

const CONFIG = `apiVersion: holdfast.dev/v1alpha1
kind: HoldfastConfiguration
kubeconfig: /etc/kubernetes/kubelet.conf
listen: ["127.0.0.1:10268"]
clients: [{name: kube-proxy, kubeconfig: /x}]
nodeAgents: ["system:serviceaccount:kube-system:multus"]
limits: {linger: 5m, scopeMaxItems: 20000, scopeMaxBytes: 128Mi}
`;

const configPath = join(mkdtempSync(join(tmpdir(), "holdfast-fuzz-")), "config.yaml");
process.once("exit", () => rmSync(dirname(configPath), { recursive: true, force: true }));

/** @returns what is wrong, in words. */
export function configuration(draw: Draw): string | undefined {
  const bytes = bent(draw, Buffer.from(CONFIG));
  writeFileSync(configPath, bytes);
  try {
    fileOf(configPath, {});
  } catch (error) {
    if (!(error instanceof ConfigError))
      return `threw ${String(error)} for ${JSON.stringify(Buffer.from(bytes).toString())}`;
    if (error.message.length > 2_000) return `a message of ${error.message.length} characters`;
  }
  return undefined;
}

const review = (draw: Draw) => ({
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: `u${oddText(draw)}`,
    operation: draw.of(["CREATE", "UPDATE", "DELETE", "CONNECT"]),
    resource: { group: "", version: "v1", resource: "pods" },
    subResource: draw.of([undefined, null, "status"]),
    userInfo: { username: oddText(draw), groups: [oddText(draw)] },
    object: { metadata: { name: oddText(draw) } },
  },
});

/** Replaces something inside by something of another kind. */
function spoiled(draw: Draw, value: unknown): unknown {
  if (typeof value !== "object" || value === null || draw.chance(0.2))
    return draw.of([null, 1, "", [], {}, true, [[]], -0]);
  const entries = Object.entries(value);
  if (entries.length === 0) return value;
  const at = draw.index(entries.length);
  const changed = entries.map(([key, one], n) => [key, n === at ? spoiled(draw, one) : one] as const);
  return Array.isArray(value) ? changed.map(([, one]) => one) : Object.fromEntries(changed);
}

/** @returns what is wrong, in words. */
export function admissionReview(draw: Draw): string | undefined {
  const whole = draw.chance(0.8) ? spoiled(draw, review(draw)) : review(draw);
  try {
    const request = readReview(JSON.parse(JSON.stringify(whole)));
    const answer = JSON.parse(reviewAnswer({ uid: request.uid, allowed: false, message: oddText(draw) }));
    const isAnswered = answer.response.uid === (whole as any).request.uid && answer.response.allowed === false;
    return isAnswered ? undefined : `answered ${JSON.stringify(answer)} to ${JSON.stringify(whole)}`;
  } catch (error) {
    return error instanceof ReviewError ? undefined : `threw ${String(error)} for ${JSON.stringify(whole)}`;
  }
}
