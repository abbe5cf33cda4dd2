/**
 * A bare machine's first client certificate, by a bootstrap token.
 *
 * The key is on disk before anybody is asked, and the request is named by it:
 * who was killed while it waited finds it again, and its answer.
 *
 *   STATE/pki/join-key.pem   the key, until kubelet has the pair
 */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { createPrivateKey } from "node:crypto";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import { EdgeError } from "../base/errors.ts";
import { cutText } from "../base/units.ts";
import type { KeyPair } from "../certificates/authority.ts";
import { newKey, requestName, signingRequest } from "../certificates/client-request.ts";
import { problemOf, REQUESTS, signingAnswerOf, type SigningAnswer } from "../certificates/signing-answer.ts";
import { askApi, type ApiWay } from "./api-ask.ts";
import type { Machine } from "./machine.ts";

/** No certificate yet, or none at all. */
export class NodeCertificateError extends EdgeError {
  override readonly name = "NodeCertificateError";
  readonly code = "NODE_CERTIFICATE";
}

const POLL_MS = 500;
/** A person who approves by hand; kubeadm waits as long. */
const PATIENCE_MS = 5 * 60_000;

/** Where the key waits. */
export function joinKeyPath(stateDir: string): string {
  return join(stateDir, "pki", "join-key.pem");
}

/** Asks for it and waits. @throws {NodeCertificateError} the next run goes on where this one ended. */
export async function requestNodeCertificate(
  machine: Machine,
  way: ApiWay,
  { nodeName, stateDir }: { readonly nodeName: string; readonly stateDir: string },
): Promise<KeyPair> {
  const keyPem = keyOf(joinKeyPath(stateDir));
  const name = requestName(keyPem);
  const subject = { commonName: `system:node:${nodeName}`, organizations: ["system:nodes"] };
  const { status } = await askApi(way, "POST", REQUESTS, JSON.stringify(signingRequest(keyPem, subject)));
  // 409: it was sent before.
  if (status !== 201 && status !== 409)
    throw new NodeCertificateError(
      `Cannot ask for a certificate: ${way.server} answers ${status}; the token may have ended: kubeadm token create --print-join-command`,
    );
  const answer = await answerOf(machine, way, name);
  if (answer.kind === "waiting")
    throw new NodeCertificateError(
      `Cannot join yet: the request ${name} has waited ${PATIENCE_MS / 60_000} minutes for approval; on the control plane: kubectl certificate approve ${name}; then run this again`,
    );
  const problem =
    answer.kind === "no"
      ? [answer.no.type, answer.no.reason, answer.no.message]
          .filter((word) => word !== undefined && word !== "")
          .join(": ")
      : problemOf({ certPem: answer.certPem, keyPem }, `O=system:nodes\nCN=${subject.commonName}`, Date.now());
  if (answer.kind === "issued" && problem === undefined) return { certPem: answer.certPem, keyPem };
  // Another key the next time: this request would be found as it is.
  rmSync(joinKeyPath(stateDir), { force: true });
  throw new NodeCertificateError(
    `Cannot join: the request ${name} came to nothing (${cutText(problem ?? "", 200)}); on the control plane: kubectl describe csr ${name}`,
  );
}

async function answerOf(machine: Machine, way: ApiWay, name: string): Promise<SigningAnswer> {
  const deadline = machine.nowMs() + PATIENCE_MS;
  for (;;) {
    // Somebody in the way for a moment costs nothing: the request stands.
    const answer = await askApi(way, "GET", `${REQUESTS}/${name}`)
      .then(({ status, body }) => (status === 200 ? signingAnswerOf(body) : undefined))
      .catch(() => undefined);
    if (answer !== undefined && answer.kind !== "waiting") return answer;
    if (machine.nowMs() >= deadline) return { kind: "waiting" };
    await machine.wait(POLL_MS);
  }
}

function keyOf(path: string): string {
  if (existsSync(path)) {
    try {
      const keyPem = readFileSync(path, "utf8");
      createPrivateKey(keyPem);
      return keyPem;
    } catch {
      // Half of a disk's truth: nothing was issued on it that anybody has.
    }
  }
  const keyPem = newKey();
  writeFileAtomically(path, keyPem, 0o600);
  return keyPem;
}
