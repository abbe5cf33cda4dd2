/**
 * What the cloud is told of this node by us: a condition, and an Event after a cut.
 */

import { coverageWords } from "../health/coverage-report.ts";
import type { StatusReport } from "../health/status-report.ts";
import { NodeCondition, type Readiness } from "../node/node-condition.ts";
import { askSmall, nodeOf } from "../node/own-node.ts";
import { lastOwnNode } from "../node/own-pods.ts";
import { ReturnEvent } from "../node/return-event.ts";
import type { FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";

const PATIENCE_MS = 10_000;

/** Builds it. */
export function buildTelling(
  ground: Ground,
  { uplink, copies, node: parts }: FrontGround,
  status: () => StatusReport,
): Part {
  const { config, clock, log, metrics, signal } = ground;
  const { upstream, link, ownCredential } = uplink;
  const node = () => nodeOf(config.upstream.credential);
  const send = async (method: string, target: string, body: string, contentType: string) => {
    const request = { method, target, accept: "application/json", body, contentType };
    const answer = await askSmall(upstream, request, ownCredential(), PATIENCE_MS, signal).catch(() => undefined);
    return answer?.status;
  };
  const condition = new NodeCondition({
    clock,
    log,
    readiness: () => readinessOf(status()),
    mayWrite: () => link.state === "online" && node() !== undefined && !parts.reconnect.isRefused,
    ownNode: () => lastOwnNode(copies.scopes, node()!),
    patch: (body) =>
      send(
        "PATCH",
        `/api/v1/nodes/${encodeURIComponent(node()!.name)}/status`,
        body,
        "application/strategic-merge-patch+json",
      ),
  });
  const event = new ReturnEvent({
    clock,
    counts: () => metrics.counts,
    nodeName: () => node()?.name,
    send: async (body) => {
      const answer = await send("POST", "/api/v1/namespaces/default/events", body, "application/json");
      if (answer !== 201)
        log.warn("the event after the return was not written", { reason: String(answer ?? "no answer") });
    },
  });
  link.onChange((isOnline) => event.changed(isOnline));
  return {
    name: "telling",
    start: () => condition.start(),
    drain() {
      condition.stop();
      event.stop();
    },
  };
}

/** True: this node could be cut off now. */
export function readinessOf({ coverage, conditions }: Pick<StatusReport, "coverage" | "conditions">): Readiness {
  const [first] = conditions;
  if (coverage === undefined)
    return { status: "Unknown", reason: "NotLookedYet", message: "Nobody has looked yet which pods would come back" };
  const isLost = coverage.node.length > 0 || coverage.pods.some(({ comesBack }) => comesBack === "no");
  if (isLost) return { status: "False", reason: "PodsNotCovered", message: coverageWords(coverage) };
  return first === undefined
    ? { status: "True", reason: "Covered", message: coverageWords(coverage) }
    : { status: "False", reason: first.type, message: `${first.reason}: ${first.message}` };
}
