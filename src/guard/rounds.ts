/**
 * What a guard does again and again, and which of it on the leader alone.
 */

import * as v from "valibot";
import { readCertificateRequest } from "../certificates/certificate-request.ts";
import type { ClusterApi } from "../cluster/api.ts";
import { apiServerNames } from "./api-server-names.ts";
import { Claims } from "./claims.ts";
import { Devices } from "./devices.ts";
import { CsrApprover } from "./csr-approver.ts";
import { describe, pause } from "../cluster/follow.ts";
import type { GuardGround } from "./ground.ts";
import { ParametersKeeper } from "./parameters-keeper.ts";
import { Reachability } from "./reachability.ts";
import { TakenNames } from "./taken-names.ts";
import { WitnessPanel } from "./witness-panel.ts";

const TRUTH_EVERY_MS = 1_000;
const PANEL_EVERY_MS = 3_000;
const APPROVE_EVERY_MS = 2_000;
const HISTORY_EVERY_MS = 30_000;
const PARAMETERS_EVERY_MS = 5_000;
const DEVICES_EVERY_MS = 10_000;

/** Runs until the signal comes. @param approvesCsrs whether certificate requests of kubelets are approved. */
export async function runRounds(ground: GuardGround, approvesCsrs: boolean): Promise<void> {
  const { view, happenings } = ground;
  const devices = new Devices(() => view.everyFacts(), happenings);
  const whenLeading = async (step: () => Promise<void>) => {
    if (ground.leader.isLeader && view.isSynced) await step();
  };
  const rounds = [
    every(HISTORY_EVERY_MS, ground, () => view.checkHistory()),
    ...truthOf(ground, whenLeading),
    every(PARAMETERS_EVERY_MS, ground, keeperOf(ground)),
    every(DEVICES_EVERY_MS, ground, () => whenLeading(async () => devices.round())),
  ];
  if (approvesCsrs) {
    const approver = approverOf(ground);
    rounds.push(every(APPROVE_EVERY_MS, ground, () => whenLeading(() => approver.round())));
  }
  await Promise.all(rounds);
}

type WhenLeading = (step: () => Promise<void>) => Promise<void>;

function truthOf(ground: GuardGround, whenLeading: WhenLeading): Promise<void>[] {
  const { view, api, clock, log, happenings } = ground;
  let clientCaPem: string | undefined;
  const panel = new WitnessPanel({ view, api, clock, log, clientCaPem: () => clientCaPem });
  const reachability = new Reachability({
    view,
    api,
    clock,
    log,
    happenings,
    witness: (node) => panel.verdictOf(node),
  });
  return [
    every(TRUTH_EVERY_MS, ground, () =>
      whenLeading(async () => {
        // Not waited for: a node whose writes take long holds up the round of no other.
        void reachability.round();
      }),
    ),
    every(PANEL_EVERY_MS, ground, () =>
      whenLeading(async () => {
        clientCaPem ??= await readClientCa(api);
        await panel.round();
      }),
    ),
  ];
}

function approverOf(ground: GuardGround): CsrApprover {
  const { target, view, api, client, clock, log, metrics, happenings, leader, namespace } = ground;
  const taken = new TakenNames({
    client,
    clock,
    nodes: () => view.everyFacts(),
    namespace,
    readConfigMap: (inNamespace, name) => api.readConfigMap(inNamespace, name),
    apiServerNames: () => apiServerNames(target),
  });
  return new CsrApprover({
    api,
    client,
    clock,
    log,
    metrics,
    happenings,
    taken,
    claims: new Claims(leader, clock),
    isLeader: () => leader.isLeader,
    read: readCertificateRequest,
  });
}

function keeperOf({ api, view, leader, clock, log, namespace }: GuardGround): () => Promise<void> {
  const keeper = new ParametersKeeper({ api, view, clock, log, namespace });
  return () => keeper.round(leader.isLeader);
}

/** The CAs by which the API server believes clients, as it publishes them itself. */
async function readClientCa(api: ClusterApi): Promise<string | undefined> {
  const found = await api.readConfigMap("kube-system", "extension-apiserver-authentication");
  const parsed = v.safeParse(v.object({ data: v.object({ "client-ca-file": v.string() }) }), found);
  return parsed.success ? parsed.output.data["client-ca-file"] : undefined;
}

/** Runs a step again and again until the signal; what fails is logged and tried the next time. */
export async function every(
  delayMs: number,
  { clock, log, signal }: Pick<GuardGround, "clock" | "log" | "signal">,
  step: () => Promise<void>,
): Promise<void> {
  while (!signal.aborted) {
    await pause(clock, delayMs, signal);
    if (signal.aborted) return;
    try {
      await step();
    } catch (error) {
      log.warn("a step failed; it is tried again", { reason: describe(error) });
    }
  }
}
