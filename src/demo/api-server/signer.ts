/**
 * What becomes of certificate requests, as the controllers for approval and
 * signing do it: at once, by the behaviour that a test has chosen.
 *
 * Source: kubernetes pkg/controller/certificates, approver and signer.
 */

import { commit, now } from "./commit.ts";
import { keyOf } from "./read.ts";
import { child, textAt, type JsonObject } from "./schema.ts";
import type { World } from "./world.ts";

const HOUR_MS = 3_600_000;
const BACKDATE_MS = 5 * 60_000;

/** Judges a request as the behaviour says. */
export function judge(world: World, request: JsonObject): void {
  const { verdict, lifeMs = HOUR_MS, backdateMs = BACKDATE_MS } = world.behaviour.signing;
  if (verdict === "wait") return;
  const resource = world.resources.ofKind("CertificateSigningRequest", undefined)!;
  const condition = (type: string, reason: string, message: string): JsonObject => ({
    type,
    status: "True",
    reason,
    message,
    lastUpdateTime: now(),
    lastTransitionTime: now(),
  });
  const approved = condition("Approved", "AutoApproved", "Auto approving kubelet client certificate");
  const status: Record<Exclude<typeof verdict, "wait">, () => JsonObject> = {
    deny: () => ({ conditions: [condition("Denied", "NotWanted", "not this one")] }),
    fail: () => ({ conditions: [approved, condition("Failed", "SignerValidationFailure", "invalid usages")] }),
    approve: () => ({ conditions: [approved], certificate: issued(world, request, lifeMs, backdateMs) }),
  };
  const key = keyOf(resource, "", textAt(request, "metadata.name"));
  commit(world, resource, key, { ...request, status: status[verdict]() });
}

function issued({ cluster }: World, request: JsonObject, lifeMs: number, backdateMs: number): string {
  const pem = Buffer.from(textAt(child(request, "spec"), "request"), "base64").toString("utf8");
  const nowMs = Date.now();
  const isServing = textAt(request, "spec.signerName") === "kubernetes.io/kubelet-serving";
  const sign = isServing ? cluster.signServingRequest : cluster.signClientRequest;
  const certificate = sign(pem, { notBeforeMs: nowMs - backdateMs, notAfterMs: nowMs + lifeMs });
  return Buffer.from(certificate).toString("base64");
}
