/**
 * What a bare machine must be told to join: by flags as kubeadm prints them,
 * or in a file as a technician writes it (`holdfast-join.yaml`).
 *
 *   apiVersion: holdfast.dev/v1alpha1
 *   kind: HoldfastJoin
 *   apiServer: 10.0.0.2:6443
 *   token: abcdef.0123456789abcdef
 *   caCertHashes: ["sha256:..."]
 *   nodeName: gw-1                     # this machine's host name
 *   labels: {site: north}
 *   taints: ["dedicated=edge:NoSchedule"]
 *   pool: north                        # neighbours that may witness for each other
 *
 * The pin of the cluster's CA is not optional: a token alone proves a control
 * plane to everybody who has ever held that token.
 */

import * as v from "valibot";
import { EdgeError } from "../base/errors.ts";
import { expectedOf, readStrictFile, readStrictText } from "../config/config-file.ts";

/** What is missing, or cannot be used; names the field, never a token. */
export class JoinOptionsError extends EdgeError {
  override readonly name = "JoinOptionsError";
  readonly code = "JOIN_OPTIONS";
}

const TOKEN_SHAPE = "a bootstrap token: 6 characters, a dot, 16 characters";
const TOKEN = /^[a-z0-9]{6}\.[a-z0-9]{16}$/;
const PIN = /^sha256:[0-9a-f]{64}$/i;
const DNS_NAME = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*$/;
const LABEL_KEY = /^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;
const TAINT = /^([^=:]+)(?:=([^:]*))?:(NoSchedule|PreferNoSchedule|NoExecute)$/;
/** Of Kubernetes' own labels a kubelet may give itself only these (pkg/kubelet/apis, IsKubeletLabel). */
const KUBELET_LABEL =
  /^(?:(?:[^/]*\.)?(?:kubelet|node)\.kubernetes\.io\/|kubernetes\.io\/(?:hostname|arch|os)$|topology\.kubernetes\.io\/(?:zone|region)$|failure-domain\.beta\.kubernetes\.io\/(?:zone|region)$|beta\.kubernetes\.io\/(?:arch|os|instance-type)$)/;
const MAX_ENTRIES = 64;
/** By which the guard finds neighbours. */
const POOL_LABEL = "holdfast.dev/pool";

const checked = (is: (text: string) => boolean, expected: string) => v.pipe(v.string(), v.check(is, expected));
const labelValue = checked(
  (text) => LABEL_VALUE.test(text),
  "a label's value: 63 letters, digits, '-', '_' or '.' at most",
);
const labelKey = checked(
  mayLabel,
  "a label that a node may give itself, such as example.com/site; others: kubectl label node, on the control plane",
);
const few = (expected: string) => v.check<string[], string>((values) => values.length <= MAX_ENTRIES, expected);

/** The file. Strict: a misspelt field would be a label or a pin less. */
export const joinFileSchema = v.strictObject({
  apiVersion: v.optional(v.literal("holdfast.dev/v1alpha1")),
  kind: v.optional(v.literal("HoldfastJoin")),
  apiServer: v.optional(
    checked((text) => originOf(text) !== undefined, "an address with its port, such as 10.0.0.2:6443"),
  ),
  token: v.optional(checked((text) => TOKEN.test(text), TOKEN_SHAPE)),
  caCertHashes: v.optional(
    v.pipe(
      v.array(checked((text) => PIN.test(text), "sha256: and 64 hexadecimal digits, as kubeadm prints it")),
      few(`a list of ${MAX_ENTRIES} at most`),
    ),
  ),
  nodeName: v.optional(
    checked((text) => DNS_NAME.test(text) && text.length <= 253, "a name of lower-case letters, digits, '-' and '.'"),
  ),
  labels: v.optional(
    v.pipe(
      v.record(labelKey, labelValue),
      v.check((labels) => Object.keys(labels).length <= MAX_ENTRIES, `${MAX_ENTRIES} labels at most`),
    ),
  ),
  taints: v.optional(
    v.pipe(
      v.array(
        checked(
          isTaint,
          'a taint such as "dedicated=edge:NoSchedule"; effects: NoSchedule, PreferNoSchedule, NoExecute',
        ),
      ),
      few(`a list of ${MAX_ENTRIES} at most`),
    ),
  ),
  pool: v.optional(labelValue),
});

/** What a file or the flags may say. */
export type JoinFile = v.InferOutput<typeof joinFileSchema>;

/** All that joining needs. */
export interface JoinOptions {
  /** https://10.0.0.2:6443 */
  readonly server: string;
  readonly tokenId: string;
  readonly tokenSecret: string;
  /** SHA-256 of the CA's SubjectPublicKeyInfo, hexadecimal, lower case; one of them must fit. */
  readonly pins: readonly string[];
  readonly nodeName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly string[];
}

/** Reads the file's text. @param path for the errors. @throws {ConfigError} naming line, field and what it should be. */
export function readJoinText(path: string, text: string): JoinFile {
  return readStrictText(path, text, joinFileSchema, "HoldfastJoin");
}

/** Reads the file. @throws {ConfigError} naming line, field and what it should be. */
export function readJoinFile(path: string): JoinFile {
  return readStrictFile(path, joinFileSchema, "HoldfastJoin");
}

/**
 * Puts them together: what a flag says counts before what the file says.
 *
 * @throws {JoinOptionsError} naming the field.
 */
export function joinOptionsOf(said: JoinFile, hostName: string): JoinOptions {
  const result = v.safeParse(joinFileSchema, said);
  if (!result.success) {
    const [issue] = result.issues;
    const field = (issue.path ?? []).map(({ key }) => String(key)).join(".");
    throw new JoinOptionsError(`Cannot join: ${field}: expected ${expectedOf(issue)}`);
  }
  const { apiServer, token, caCertHashes = [], labels = {}, taints = [], pool } = result.output;
  const nodeName = result.output.nodeName ?? hostName.toLowerCase();
  if (apiServer === undefined)
    throw missing(
      "apiServer",
      "the API server's address, such as 10.0.0.2:6443",
      "kubeadm token create --print-join-command",
    );
  if (token === undefined) throw missing("token", TOKEN_SHAPE, "kubeadm token create --print-join-command");
  if (caCertHashes.length === 0)
    throw missing(
      "caCertHashes",
      "the pin of the cluster's CA (sha256:...)",
      "kubeadm token create --print-join-command",
    );
  if (!DNS_NAME.test(nodeName))
    throw new JoinOptionsError(
      `Cannot join as "${nodeName}": a node's name is of lower-case letters, digits, '-' and '.'; name another by nodeName`,
    );
  const [tokenId = "", tokenSecret = ""] = token.split(".");
  return {
    server: originOf(apiServer)!,
    tokenId,
    tokenSecret,
    pins: caCertHashes.map((pin) => pin.slice("sha256:".length).toLowerCase()),
    nodeName,
    labels: pool === undefined ? labels : { ...labels, [POOL_LABEL]: pool },
    taints,
  };
}

function missing(field: string, what: string, next: string): JoinOptionsError {
  return new JoinOptionsError(`Cannot join: ${field} is missing: ${what}; the control plane prints it: ${next}`);
}

/** "10.0.0.2:6443" or "https://10.0.0.2:6443" as an origin; undefined where it is neither. */
function originOf(text: string): string | undefined {
  if (/^http:/i.test(text)) return undefined;
  try {
    const { origin, pathname, search, hash, username, port, host } = new URL(
      /^https:\/\//i.test(text) ? text : `https://${text}`,
    );
    const isBare = pathname === "/" && search === "" && hash === "" && username === "";
    return isBare && (port !== "" || text.endsWith(":443")) && host !== "" ? origin : undefined;
  } catch {
    return undefined;
  }
}

function mayLabel(key: string): boolean {
  if (!LABEL_KEY.test(key)) return false;
  const [domain] = key.includes("/") ? key.split("/") : [""];
  const isKubernetes = /(?:^|\.)(?:kubernetes|k8s)\.io$/.test(domain!);
  return !isKubernetes || KUBELET_LABEL.test(key);
}

function isTaint(text: string): boolean {
  const [, key = "", value = ""] = TAINT.exec(text) ?? [];
  return LABEL_KEY.test(key) && LABEL_VALUE.test(value);
}
