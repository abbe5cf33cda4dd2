/**
 * The node's client certificate, as a rotation has it: the same subject again,
 * on another key.
 */

import { X509Certificate } from "node:crypto";
import { clientSubjectOf, signingRequest } from "./client-request.ts";
import type { OwnPair } from "./own-pair.ts";
import { validityOf, type Renewals } from "./renewals.ts";
import type { RotationRole } from "./rotation.ts";
import { problemOf } from "./signing-answer.ts";

/** The role of the pair by which the API server knows this node. */
export function nodeClientRole(pair: OwnPair, renewals: Renewals): RotationRole {
  const current = () => pair.read().certPem;
  return {
    what: "node certificate",
    name: "node-client",
    current,
    dueMs: () => renewals.momentOf(current(), validityOf(current())),
    request: (keyPem) => signingRequest(keyPem, clientSubjectOf(current())),
    problem: (issued, nowMs) => problemOf(issued, new X509Certificate(current()).subject, nowMs),
    keep: (issued) => pair.keep(issued),
  };
}
