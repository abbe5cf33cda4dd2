/**
 * `holdfast gateway`: the tunnels' far end, in the cluster.
 */

import { isIP } from "node:net";
import { parseHostPort, type HostPort } from "../base/address.ts";
import { systemClock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { jsonLog } from "../base/log.ts";
import { startGateway, type GatewayOptions } from "../gateway/daemon.ts";
import { parseLabelSelector } from "../kube/selectors.ts";
import { targetOfPart } from "./cluster-target.ts";
import { GATEWAY_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { onStray } from "./strays.ts";
import { complain } from "./terminal.ts";

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const HOST_NAME = /^[0-9a-zA-Z.:-]{1,253}$/;
const FIRST_FREE_PORT = 1024;

type Values = ReturnType<typeof readFlags<typeof GATEWAY_FLAGS>>["values"];

/** Runs until a signal comes. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, GATEWAY_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  const choices = choicesOf(values, process.env);
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort(new Error(signal)));
  const log = jsonLog();
  onStray((error) => log.error("unexpected", { error: error instanceof Error ? error.name : typeof error }));
  try {
    const target = targetOfPart(values.kubeconfig, process.env);
    const daemon = await startGateway({ ...choices, target, clock: systemClock, log, signal: stop.signal });
    await daemon.ended;
    return 0;
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    complain(`holdfast gateway: ${error.message}`);
    complain("See: holdfast help gateway");
    return 1;
  }
}

type Choices = Omit<GatewayOptions, "target" | "clock" | "log" | "signal">;

/** The flags, checked. @throws {UsageError} naming the flag. */
function choicesOf(values: Values, env: Readonly<Record<string, string | undefined>>): Choices {
  const { namespace = "holdfast-system", nodes = "", "tls-cert-file": cert, "tls-key-file": key } = values;
  if (!DNS_LABEL.test(namespace)) throw new UsageError(`--namespace: expected a DNS label, got '${namespace}'`);
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError("--tls-cert-file and --tls-key-file go together");
  const plain = values["listen-plain"];
  if (cert === undefined && plain === undefined)
    throw new UsageError(
      "Nodes are to be met with a certificate: --tls-cert-file and --tls-key-file, or --listen-plain",
    );
  if (nodes !== "" && parseLabelSelector(nodes) === undefined)
    throw new UsageError(`--nodes: expected a label selector such as pool=edge, got '${nodes}'`);
  const podAddress = addressOf("--pod-ip", values["pod-ip"] ?? env["POD_IP"] ?? "");
  return {
    namespace,
    listen: cert === undefined ? undefined : placeOf("--listen", values.listen ?? "0.0.0.0:8443"),
    listenPlain: plain === undefined ? undefined : placeOf("--listen-plain", plain),
    healthListen: placeOf("--health-listen", values["health-listen"] ?? "0.0.0.0:10445"),
    doorHost: addressOf("--door-address", values["door-address"] ?? podAddress),
    handoverPort: portOf(values["handover-port"] ?? "8444"),
    podAddress,
    ...modeOf(values, podAddress),
    ports: rangeOf(values.ports ?? "20000-29999"),
    nodeSelector: nodes,
    allowFrom: listOf(values["allow-from"]).map(rangeOfAddresses),
    names: namesOf(values.names),
    tlsFiles: cert === undefined || key === undefined ? undefined : { cert, key },
    clientCaFile: values["client-ca-file"],
  };
}

function modeOf({ mode = "service", address }: Values, podAddress: string): Pick<Choices, "mode" | "isShared"> {
  if (mode === "service") {
    if (address !== undefined) throw new UsageError("--address goes with --mode port; a Service has its own");
    return { mode: { kind: "service" }, isShared: false };
  }
  if (mode !== "port") throw new UsageError(`--mode: expected service or port, got '${mode}'`);
  const shared = address === undefined ? undefined : addressOf("--address", address);
  return { mode: { kind: "port", address: shared ?? podAddress }, isShared: shared !== undefined };
}

function listOf(text = ""): string[] {
  return text
    .split(",")
    .map((one) => one.trim())
    .filter((one) => one !== "");
}

function namesOf(text: string | undefined): string[] {
  const names = listOf(text);
  const wrong = names.find((name) => !HOST_NAME.test(name));
  if (wrong !== undefined || names.length === 0)
    throw new UsageError(`--names: expected host names by comma, such as gateway.example, got '${wrong ?? ""}'`);
  return names;
}

function addressOf(flag: string, text: string): string {
  if (isIP(text) === 0) throw new UsageError(`${flag}: expected an IP address, got '${text}'`);
  return text;
}

function placeOf(flag: string, given: string): HostPort {
  const place = parseHostPort(given);
  if (place === undefined) throw new UsageError(`${flag}: expected ADDRESS:PORT such as 0.0.0.0:8443, got '${given}'`);
  return { host: place.host || "0.0.0.0", port: place.port };
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > 65_535) throw new UsageError(`--handover-port: expected a port, got '${text}'`);
  return port;
}

function rangeOf(text: string): { first: number; last: number } {
  const [, first = 0, last = 0] = (/^(\d{1,5})-(\d{1,5})$/.exec(text) ?? []).map(Number);
  if (first < FIRST_FREE_PORT || last > 65_535 || first > last)
    throw new UsageError(`--ports: expected FIRST-LAST from ${FIRST_FREE_PORT} to 65535, got '${text}'`);
  return { first, last };
}

function rangeOfAddresses(text: string): string {
  const [address = "", bits = ""] = text.split("/");
  const most = isIP(address) === 6 ? 128 : 32;
  if (isIP(address) === 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > most)
    throw new UsageError(`--allow-from: expected ADDRESS/BITS such as 10.0.0.0/8, got '${text}'`);
  return text;
}
