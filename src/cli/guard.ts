/**
 * `holdfast guard`: keeps the control plane from evicting what is only cut off.
 * `holdfast guard explain`: why something was or was not refused.
 */

import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { parseHostPort } from "../base/address.ts";
import { systemClock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { jsonLog } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { ApiError } from "../guard/api.ts";
import { explainNode, explainPod, explanationText, NothingToExplain } from "../guard/explain.ts";
import { kubernetesClient, type KubernetesTarget } from "../guard/kubernetes.ts";
import { GUARD_NAMESPACE } from "../guard/names.ts";
import { startGuard, type GuardAddress } from "../guard/daemon.ts";
import { loadKubeconfig } from "../config/kubeconfig.ts";
import { complain, print, readFlags, UsageError } from "./command.ts";

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Runs until a signal comes, or explains. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, {
    kubeconfig: { type: "string" },
    namespace: { type: "string" },
    listen: { type: "string" },
    "health-listen": { type: "string" },
    "service-name": { type: "string" },
    "tls-cert-file": { type: "string" },
    "tls-key-file": { type: "string" },
    "approve-csrs": { type: "boolean" },
    output: { type: "string", short: "o" },
  });
  const namespace = values.namespace ?? GUARD_NAMESPACE;
  if (!DNS_LABEL.test(namespace)) throw new UsageError(`--namespace: expected a DNS label, got '${namespace}'`);
  try {
    const target = targetOf(values.kubeconfig);
    const [action, subject, ...rest] = positionals;
    if (action === "explain") {
      if (subject === undefined || rest.length > 0)
        throw new UsageError("Name one thing: explain NODE or explain NAMESPACE/POD");
      if (values.output !== undefined && values.output !== "json")
        throw new UsageError(`Unknown output '${values.output}'; expected json`);
      return await explain(subject, target, namespace, values.output === "json");
    }
    if (action !== undefined) throw new UsageError(`Unknown action '${action}'; expected explain, or none to run`);
    const { "tls-cert-file": cert, "tls-key-file": key } = values;
    if ((cert === undefined) !== (key === undefined))
      throw new UsageError("--tls-cert-file and --tls-key-file go together");
    const stop = new AbortController();
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort(new Error(signal)));
    const log = jsonLog();
    process.on("unhandledRejection", (error) => log.error("unexpected", { error: kindOf(error) }));
    process.on("uncaughtException", (error) => log.error("unexpected", { error: kindOf(error) }));
    const daemon = await startGuard({
      target,
      namespace,
      serviceName: values["service-name"] ?? "holdfast-guard",
      listen: addressOf("--listen", values.listen ?? "0.0.0.0:10443"),
      healthListen: addressOf("--health-listen", values["health-listen"] ?? "0.0.0.0:10444"),
      approvesCsrs: values["approve-csrs"] ?? false,
      tlsFiles: cert === undefined || key === undefined ? undefined : { cert, key },
      clock: systemClock,
      log,
      signal: stop.signal,
    });
    await daemon.ended;
    return 0;
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    complain(`holdfast guard: ${error.message}`);
    complain("See: holdfast help guard");
    return 1;
  }
}

async function explain(subject: string, target: KubernetesTarget, namespace: string, isJson: boolean): Promise<number> {
  const client = kubernetesClient({ target, clock: systemClock, userAgent: `holdfast-explain/${VERSION}` });
  const options = { client, namespace, nowMs: Date.now() };
  const [first = "", second] = subject.split("/");
  try {
    const explanation =
      second === undefined ? await explainNode(first, options) : await explainPod(first, second, options);
    print(isJson ? JSON.stringify(explanation, null, 2) : explanationText(explanation));
    return 0;
  } catch (error) {
    if (!(error instanceof NothingToExplain || error instanceof ApiError)) throw error;
    complain(`holdfast guard explain: ${error.message}`);
    return 1;
  }
}

/** The kubeconfig named, or the service account of the pod that this runs in. */
function targetOf(kubeconfig: string | undefined): KubernetesTarget {
  if (kubeconfig !== undefined) {
    const { server, caPem, tlsServerName, proxyUrl, credential } = loadKubeconfig(kubeconfig);
    return { server, caPem, tlsServerName, proxyUrl, credential };
  }
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = "443" } = process.env;
  if (host === undefined || !existsSync(`${SERVICE_ACCOUNT}/token`))
    throw new UsageError("Not in a pod: name a kubeconfig with --kubeconfig FILE");
  return {
    server: `https://${isIP(host) === 6 ? `[${host}]` : host}:${port}`,
    // Both are exchanged while we run.
    caPem: () => readFileSync(`${SERVICE_ACCOUNT}/ca.crt`, "utf8"),
    credential: { kind: "token", read: () => readFileSync(`${SERVICE_ACCOUNT}/token`, "utf8").trim() },
  };
}

function addressOf(flag: string, given: string): GuardAddress {
  const address = parseHostPort(given);
  if (address === undefined)
    throw new UsageError(`${flag}: expected ADDRESS:PORT such as 0.0.0.0:10443, got '${given}'`);
  return { host: address.host || "0.0.0.0", port: address.port };
}

function kindOf(error: unknown): string {
  return error instanceof EdgeError ? error.message : error instanceof Error ? error.name : typeof error;
}
