/**
 * Which certificate requests are approved without a person.
 *
 * Two signers, and of each only what a stock kubelet asks for:
 *
 *   kubernetes.io/kube-apiserver-client-kubelet   a node's identity: O=system:nodes, CN=system:node:NAME, no other name;
 *                                                 asked by that node, or with a bootstrap token bound to it
 *   kubernetes.io/kubelet-serving                 the same subject with the node's addresses, and those of its place
 *                                                 at our gateway; asked by that node
 *
 * What does not fit is left as it is, never denied: another approver or a
 * person may know more. A bootstrap token is bound by a group of its own,
 * system:bootstrappers:holdfast:NODE with the dots of the name as colons,
 * because the groups of a token may have no dots.
 *
 * A kubelet writes the addresses in its Node object itself, so a stolen node
 * could claim anybody's and be believed by every pod. What is the API server's,
 * a Service's or another node's is therefore not certified, whatever a Node
 * says; `taken-names.ts` knows whose they are.
 *
 * Source: Kubernetes, "Certificate signing requests", Kubernetes signers; the
 * token's groups: `auth-extra-groups` of bootstrap token Secrets.
 */

import { isIP } from "node:net";
import { byValue, type TakenBy } from "./taken-names.ts";

/** The two signers, by what their certificates are for. */
export const SIGNERS = {
  client: "kubernetes.io/kube-apiserver-client-kubelet",
  serving: "kubernetes.io/kubelet-serving",
} as const;

/** What is asked for. */
export type CertificateUse = keyof typeof SIGNERS;

/** Why a request is left to others; the values of a metric's label. */
export const PENDING_REASONS = [
  "unreadable",
  "subject",
  "requester",
  "names",
  "extensions",
  "usages",
  "lifetime",
  "key",
  "no-node",
  "address",
  "reserved-address",
  "another-nodes",
  "too-often",
  "not-accepted",
] as const;

/** One of them. */
export type PendingReason = (typeof PENDING_REASONS)[number];

/** A request that is left to others. */
export interface Pending {
  readonly reason: PendingReason;
  /** What is wrong and what to do, without anything secret. */
  readonly message: string;
}

/** What stands in the request itself. */
export interface AskedCertificate {
  readonly subject: readonly { readonly type: string; readonly value: string }[];
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly emails: readonly string[];
  readonly uris: readonly string[];
  readonly extensions: readonly { readonly id: string; readonly isCritical: boolean }[];
  readonly key: { readonly kind: "ecdsa" | "rsa" | "ed25519"; readonly bits: number };
}

/** What the API server says of a request, and of who made it. */
export interface RequestSpec {
  readonly use: CertificateUse;
  readonly username: string;
  readonly groups: readonly string[];
  readonly usages: readonly string[];
  readonly expirationSeconds: number | undefined;
}

/** A node, as far as its serving certificate is concerned. */
export interface AddressedNode {
  readonly addresses: readonly string[];
  /** Labelled by an admin: a kubelet cannot give itself this label. */
  readonly isControlPlane: boolean;
}

/** What the rules are asked about. */
export interface Case {
  readonly spec: RequestSpec;
  readonly asked: AskedCertificate;
  /** For serving certificates; undefined when there is no such node. */
  readonly node: AddressedNode | undefined;
  /** For serving certificates. */
  readonly takenBy: TakenBy;
  /** For serving certificates: where the gateway takes connections for this node, by value. */
  readonly place: ReadonlySet<string>;
  /** Until when this node gets no other certificate of this signer, ms since the epoch; undefined: it had none lately. */
  readonly notBeforeMs: number | undefined;
  readonly nowMs: number;
}

/** At most one approval for each node and signer in this time, or in half the life of the certificate where that is shorter. */
export const APPROVAL_PAUSE_MS = 3_600_000;

const NODE_GROUP = "system:nodes";
const NODE_USER_PREFIX = "system:node:";
const BOOTSTRAP_GROUP = "system:bootstrappers";
const SUBJECT_ALT_NAME = "2.5.29.17";
const MIN_LIFETIME_S = 600;
/** A year and a day: the signer's own limit is a year unless the cluster says otherwise. */
const MAX_LIFETIME_S = 366 * 86_400;
const NODE_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;

/** The use of a signer; undefined when it is not one of ours. */
export function useOf(signerName: string): CertificateUse | undefined {
  return (Object.keys(SIGNERS) as CertificateUse[]).find((use) => SIGNERS[use] === signerName);
}

/** The node that a request's subject names, in full form; undefined for any other subject. */
export function nodeNamed({ subject }: AskedCertificate): string | undefined {
  const group = subject.find(({ type }) => type === "O");
  const user = subject.find(({ type }) => type === "CN");
  if (subject.length !== 2 || group?.value !== NODE_GROUP || user?.value.startsWith(NODE_USER_PREFIX) !== true)
    return undefined;
  const name = user.value.slice(NODE_USER_PREFIX.length);
  return NODE_NAME.test(name) ? name : undefined;
}

/** The group that binds a bootstrap token to a node. */
export function bootstrapGroupOf(nodeName: string): string {
  return `${BOOTSTRAP_GROUP}:holdfast:${nodeName.replaceAll(".", ":")}`;
}

/** @returns undefined when the request may be approved. */
export function whyPending(given: Case): Pending | undefined {
  const nodeName = nodeNamed(given.asked);
  if (nodeName === undefined)
    return pending("subject", "expected the subject O=system:nodes, CN=system:node:NAME and nothing else");
  return (
    requesterFault(given.spec, nodeName) ??
    usageFault(given.spec, given.asked) ??
    lifetimeFault(given.spec) ??
    keyFault(given.asked) ??
    extensionFault(given.asked) ??
    (given.spec.use === "client" ? clientNameFault(given.asked) : servingNameFault(given, nodeName)) ??
    frequencyFault(given)
  );
}

function requesterFault({ use, username, groups }: RequestSpec, nodeName: string): Pending | undefined {
  if (username === `${NODE_USER_PREFIX}${nodeName}` && groups.includes(NODE_GROUP)) return undefined;
  const group = bootstrapGroupOf(nodeName);
  const isBound =
    /^system:bootstrap:[a-z0-9]{6}$/.test(username) && groups.includes(BOOTSTRAP_GROUP) && groups.includes(group);
  if (use === "client" && isBound) return undefined;
  const others = use === "client" ? ` or a bootstrap token with the group ${group}` : "";
  return pending("requester", `expected the requester system:node:${nodeName}${others}`);
}

function usageFault({ use, usages }: RequestSpec, { key }: AskedCertificate): Pending | undefined {
  const needed = ["digital signature", use === "client" ? "client auth" : "server auth"];
  // A key that can encrypt may say so; for the others the word means nothing.
  const allowed = key.kind === "rsa" ? [...needed, "key encipherment"] : needed;
  const isExact =
    new Set(usages).size === usages.length &&
    needed.every((usage) => usages.includes(usage)) &&
    usages.every((usage) => allowed.includes(usage));
  return isExact ? undefined : pending("usages", `expected exactly these usages: ${needed.join(", ")}`);
}

function lifetimeFault({ expirationSeconds }: RequestSpec): Pending | undefined {
  if (expirationSeconds === undefined) return undefined;
  const isSane =
    Number.isInteger(expirationSeconds) && expirationSeconds >= MIN_LIFETIME_S && expirationSeconds <= MAX_LIFETIME_S;
  return isSane
    ? undefined
    : pending("lifetime", `expected expirationSeconds between ${MIN_LIFETIME_S} and ${MAX_LIFETIME_S}, or none`);
}

function keyFault({ key: { kind, bits } }: AskedCertificate): Pending | undefined {
  const isGood = kind === "ed25519" || (kind === "rsa" ? bits >= 2048 && bits <= 8192 : bits === 256 || bits === 384);
  return isGood ? undefined : pending("key", "expected a key of P-256, P-384, Ed25519, or RSA of 2048 to 8192 bits");
}

/** Kubelet asks for names alone; the signer decides about the rest by the usages. */
function extensionFault({ extensions }: AskedCertificate): Pending | undefined {
  const isPlain = extensions.every(({ id }) => id === SUBJECT_ALT_NAME);
  return isPlain ? undefined : pending("extensions", "expected no requested extension other than names");
}

function clientNameFault({ extensions }: AskedCertificate): Pending | undefined {
  return extensions.length === 0 ? undefined : pending("names", "expected no names beside the subject");
}

function servingNameFault({ asked, node, takenBy, place }: Case, nodeName: string): Pending | undefined {
  const { dnsNames, ipAddresses, emails, uris } = asked;
  if (emails.length + uris.length > 0) return pending("names", "expected DNS names and addresses only");
  const names = [...dnsNames, ...ipAddresses];
  if (names.length === 0) return pending("names", "expected at least one DNS name or address");
  if (node === undefined) return pending("no-node", `there is no node ${nodeName}, whose addresses could be compared`);
  if (dnsNames.some(isReservedName) || names.some(isReservedAddress))
    return pending("reserved-address", "expected no name of a Service, no loopback and no link-local address");
  const claimant = { nodeName, isControlPlane: node.isControlPlane };
  for (const name of names) {
    const taken = takenBy(name, claimant);
    if (taken === undefined) continue;
    const more = taken.by === "node" ? "; delete that node if it is gone" : "";
    return pending(
      taken.by === "node" ? "another-nodes" : "reserved-address",
      `${name} is known as ${taken.whose}, whatever stands in status.addresses of the node ${nodeName}${more}`,
    );
  }
  const held = new Set([...node.addresses.map(byValue), ...place]);
  if (!names.every((one) => held.has(byValue(one))))
    return pending(
      "address",
      `expected only what stands in status.addresses of the node ${nodeName}, or its place at the gateway`,
    );
  return dnsNames.every((name) => NODE_NAME.test(name.toLowerCase()))
    ? undefined
    : pending("names", "expected plain DNS names, without wildcards");
}

function frequencyFault({ notBeforeMs, nowMs }: Case): Pending | undefined {
  // An approval that lies in the future, by another's clock, is one all the same.
  if (notBeforeMs === undefined || nowMs >= notBeforeMs) return undefined;
  return pending("too-often", "this node had a request to this signer approved a short while ago");
}

/** A name that pods know: of the API server, of this machine, or of a Service. */
function isReservedName(name: string): boolean {
  const labels = name.toLowerCase().split(".");
  return ["localhost", "kubernetes"].includes(labels[0]!) || labels.at(-1) === "localhost" || labels.includes("svc");
}

/** Loopback, unspecified, link-local and multicast: no address of one machine among others. */
function isReservedAddress(name: string): boolean {
  const plain = byValue(name);
  if (isIP(plain) === 4) return /^(?:127|0|169\.254|22[4-9]|23\d|24\d|25\d)\./.test(plain);
  return isIP(plain) === 6 && /^(?:::1?$|::ffff:|fe[89ab]|ff)/.test(plain);
}

function pending(reason: PendingReason, message: string): Pending {
  return { reason, message };
}
