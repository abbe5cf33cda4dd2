/**
 * `holdfast guard`: keeps the control plane from evicting what is only cut off.
 * `holdfast guard explain`: why something was or was not refused.
 */

import { parseHostPort } from "../base/address.ts";
import { systemClock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { jsonLog } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { ApiError } from "../cluster/api.ts";
import { explainNode, explainPod, explanationText, NothingToExplain } from "../guard/explain.ts";
import { clusterApi } from "../guard/api-classes.ts";
import { GUARD_NAMESPACE } from "../guard/names.ts";
import { startGuard } from "../guard/daemon.ts";
import type { GuardAddress } from "../guard/served.ts";
import { targetOfPart, targetOfPerson } from "./cluster-target.ts";
import { GUARD_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { onStray } from "./strays.ts";
import { complain, print } from "./terminal.ts";

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Runs until a signal comes, or explains. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, GUARD_FLAGS);
  const namespace = values.namespace ?? GUARD_NAMESPACE;
  if (!DNS_LABEL.test(namespace)) throw new UsageError(`--namespace: expected a DNS label, got '${namespace}'`);
  const [action, ...subjects] = positionals;
  try {
    if (action === "explain") return await explain(subjects, { ...values, namespace });
    if (action !== undefined) throw new UsageError(`Unknown action '${action}'; expected explain, or none to run`);
    return await run({ ...values, namespace });
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    complain(`holdfast guard: ${error.message}`);
    complain("See: holdfast help guard");
    return 1;
  }
}

interface GuardFlags {
  readonly namespace: string;
  readonly kubeconfig?: string | undefined;
  readonly listen?: string | undefined;
  readonly "health-listen"?: string | undefined;
  readonly "service-name"?: string | undefined;
  readonly "tls-cert-file"?: string | undefined;
  readonly "tls-key-file"?: string | undefined;
  readonly "approve-csrs"?: boolean | undefined;
  readonly output?: string | undefined;
}

async function run(flags: GuardFlags): Promise<number> {
  const { namespace, "tls-cert-file": cert, "tls-key-file": key } = flags;
  const target = targetOfPart(flags.kubeconfig, process.env);
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError("--tls-cert-file and --tls-key-file go together");
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort(new Error(signal)));
  const log = jsonLog();
  onStray((error) => log.error("unexpected", { error: kindOf(error) }));
  const daemon = await startGuard({
    target,
    namespace,
    serviceName: flags["service-name"] ?? "holdfast-guard",
    listen: addressOf("--listen", flags.listen ?? "0.0.0.0:10443"),
    healthListen: addressOf("--health-listen", flags["health-listen"] ?? "0.0.0.0:10444"),
    approvesCsrs: flags["approve-csrs"] ?? false,
    tlsFiles: cert === undefined || key === undefined ? undefined : { cert, key },
    clock: systemClock,
    log,
    signal: stop.signal,
  });
  await daemon.ended;
  return 0;
}

async function explain(subjects: readonly string[], flags: GuardFlags): Promise<number> {
  const [subject, ...rest] = subjects;
  if (subject === undefined || rest.length > 0)
    throw new UsageError("Name one thing: explain NODE or explain NAMESPACE/POD");
  if (flags.output !== undefined && flags.output !== "json")
    throw new UsageError(`Unknown output '${flags.output}'; expected json`);
  const target = targetOfPerson(flags.kubeconfig, process.env);
  const api = clusterApi({ target, userAgent: `holdfast-explain/${VERSION}` });
  const options = { api, namespace: flags.namespace, nowMs: Date.now() };
  const [first = "", second] = subject.split("/");
  try {
    const explanation =
      second === undefined ? await explainNode(first, options) : await explainPod(first, second, options);
    print(flags.output === "json" ? JSON.stringify(explanation, null, 2) : explanationText(explanation));
    return 0;
  } catch (error) {
    if (!(error instanceof NothingToExplain || error instanceof ApiError)) throw error;
    complain(`holdfast guard explain: ${error.message}`);
    return 1;
  }
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
