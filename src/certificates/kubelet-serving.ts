/**
 * Kubelet's serving certificate, where the API server verifies kubelets and
 * dials this one at its place.
 *
 *   STATE/pki/kubelet-serving.pem   certificate and key in one file, for tlsCertFile and tlsPrivateKeyFile both
 *
 * Kubelet's own request names the addresses that it has, never the place, and
 * is signed by a key that nobody else holds. So the request is ours, with the
 * true addresses and the place's, and kubelet reads the file anew when it
 * changes (ReloadKubeletServerCertificateFile, on since 1.31). One file is old
 * or new, never half.
 *
 * A certificate that names more than is wanted now stays: a place that is gone
 * for a while must not cost a request at its going and another at its coming.
 */

import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { KeyPair } from "./authority.ts";
import { clientRequest, clientSubjectOf, requestName, type SubjectNames } from "./client-request.ts";
import { validityOf, type Renewals } from "./renewals.ts";
import type { RotationRole } from "./rotation.ts";
import { problemOf } from "./signing-answer.ts";

const SIGNER = "kubernetes.io/kubelet-serving";

/** What it is made with. */
export interface KubeletServingParts {
  readonly stateDir: string;
  readonly renewals: Renewals;
  /** The node's client certificate, whose subject is its serving one's too. */
  readonly clientCertPem: () => string;
  /** Where kubelet is dialled, true addresses and place; undefined while that is not known. */
  readonly hosts: () => readonly string[] | undefined;
}

/** Where the pair lies. */
export function kubeletServingPath(stateDir: string): string {
  return join(stateDir, "pki", "kubelet-serving.pem");
}

/** Its role in a rotation. */
export function kubeletServingRole({ stateDir, renewals, clientCertPem, hosts }: KubeletServingParts): RotationRole {
  const path = kubeletServingPath(stateDir);
  const subject = () => new X509Certificate(clientCertPem()).subject;
  let current = readCertificate(path);
  return {
    what: "serving certificate of kubelet",
    name: "kubelet-serving",
    current: () => current,
    dueMs() {
      const wanted = hosts();
      if (wanted === undefined) return Number.POSITIVE_INFINITY;
      if (current === undefined || !covers(current, wanted)) return 0;
      return renewals.momentOf(current, validityOf(current));
    },
    request: (keyPem) => servingRequest(keyPem, clientCertPem(), namesOf(hosts() ?? [])),
    problem: (issued, nowMs) => problemOf(issued, subject(), nowMs, "server"),
    keep({ certPem, keyPem }: KeyPair) {
      writeFileAtomically(path, `${certPem.trimEnd()}\n${keyPem.trimEnd()}\n`, 0o600);
      current = certPem;
    },
  };
}

function servingRequest(keyPem: string, clientCertPem: string, names: SubjectNames): object {
  return {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: { name: requestName(keyPem) },
    spec: {
      signerName: SIGNER,
      request: Buffer.from(clientRequest(keyPem, clientSubjectOf(clientCertPem), names)).toString("base64"),
      usages: ["digital signature", "server auth"],
    },
  };
}

function namesOf(hosts: readonly string[]): SubjectNames {
  const unique = [...new Set(hosts)];
  return {
    dnsNames: unique.filter((host) => isIP(host) === 0),
    ipAddresses: unique.filter((host) => isIP(host) !== 0),
  };
}

function covers(certPem: string, hosts: readonly string[]): boolean {
  const leaf = new X509Certificate(certPem);
  return hosts.every((host) => (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined);
}

/** What lies there and cannot be read is made anew. */
function readCertificate(path: string): string | undefined {
  try {
    const text = readFileSync(path, "utf8");
    return new X509Certificate(text).toString();
  } catch {
    return undefined;
  }
}
