/**
 * A kubeconfig, read as kubectl reads it, with errors that say what to mend.
 *
 * Only what an unattended daemon can use is taken: certificates and tokens.
 * Messages name the file, the field and what is wrong with it, never a value.
 */

import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import * as v from "valibot";
import { EdgeError } from "./base/errors.ts";
import type { Credential } from "./kube/credential.ts";

/** What a kubeconfig's current context says. */
export interface Kubeconfig {
  readonly server: string;
  readonly caPem: string;
  readonly tlsServerName?: string;
  readonly proxyUrl?: string;
  readonly credential: Credential;
  /** What is odd but no reason to stop: an expired certificate, fields that nobody knows. */
  readonly warnings: readonly string[];
}

/** A kubeconfig cannot be used. */
export class KubeconfigError extends EdgeError {
  override readonly name = "KubeconfigError";
  readonly code = "KUBECONFIG";

  constructor(
    readonly path: string,
    readonly field: string,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`Cannot use kubeconfig "${path}": ${field === "" ? "" : `${field}: `}${problem}`, options);
  }
}

const text = v.optional(v.string());
const clusterSchema = v.looseObject({
  server: text,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": v.optional(v.boolean()),
  "tls-server-name": text,
  "proxy-url": text,
  "disable-compression": v.optional(v.boolean()),
  extensions: v.optional(v.unknown()),
});
const userSchema = v.looseObject({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  exec: v.optional(v.unknown()),
  "auth-provider": v.optional(v.unknown()),
  username: text,
  password: text,
  as: v.optional(v.unknown()),
  extensions: v.optional(v.unknown()),
});
const schema = v.looseObject({
  apiVersion: v.optional(v.string()),
  kind: v.optional(v.string()),
  "current-context": text,
  clusters: v.optional(v.nullable(v.array(v.looseObject({ name: v.string(), cluster: clusterSchema })))),
  users: v.optional(v.nullable(v.array(v.looseObject({ name: v.string(), user: v.nullable(userSchema) })))),
  contexts: v.optional(v.nullable(v.array(v.looseObject({ name: v.string(), context: v.looseObject({ cluster: v.string(), user: v.string() }) })))),
});
const KNOWN_TOP = new Set(["apiVersion", "kind", "current-context", "clusters", "users", "contexts", "preferences", "extensions"]);
/** Files are looked at no more often than this. */
const STAT_EVERY_MS = 1_000;

/**
 * Loads a kubeconfig's current context.
 *
 * @throws {KubeconfigError} naming file, field and remedy.
 */
export function loadKubeconfig(path: string): Kubeconfig {
  const document = read(path);
  const warnings = [...Object.keys(document)].filter((key) => !KNOWN_TOP.has(key)).map((key) => `kubeconfig "${path}": unknown field "${key}" is ignored`);
  const { clusters, users, contexts } = { clusters: document.clusters ?? [], users: document.users ?? [], contexts: document.contexts ?? [] };
  const contextName = document["current-context"] ?? "";
  if (contextName === "") throw new KubeconfigError(path, "current-context", "is not set; choose one with kubectl config use-context NAME");
  const context = contexts.find(({ name }) => name === contextName)?.context;
  if (context === undefined) throw new KubeconfigError(path, "current-context", `names "${contextName}", which is not among contexts`);
  const clusterIndex = clusters.findIndex(({ name }) => name === context.cluster);
  if (clusterIndex < 0) throw new KubeconfigError(path, "contexts[].context.cluster", `names "${context.cluster}", which is not among clusters`);
  const userIndex = users.findIndex(({ name }) => name === context.user);
  if (userIndex < 0) throw new KubeconfigError(path, "contexts[].context.user", `names "${context.user}", which is not among users`);
  const cluster = clusters[clusterIndex]!.cluster;
  const at = `clusters[${clusterIndex}].cluster`;
  if (cluster["insecure-skip-tls-verify"] === true) throw new KubeconfigError(path, `${at}.insecure-skip-tls-verify`, "is true; Holdfast never talks to an API server it cannot verify; give the CA in certificate-authority-data instead");
  const caPem = content(path, `${at}.certificate-authority`, cluster["certificate-authority-data"], cluster["certificate-authority"]);
  if (caPem === undefined) throw new KubeconfigError(path, `${at}.certificate-authority-data`, "is missing; without the cluster's CA neither the API server nor local clients can be verified");
  checkCertificates(path, `${at}.certificate-authority-data`, caPem);
  return {
    server: serverOf(path, `${at}.server`, cluster.server),
    caPem,
    ...(cluster["tls-server-name"] === undefined ? {} : { tlsServerName: cluster["tls-server-name"] }),
    ...(cluster["proxy-url"] === undefined ? {} : { proxyUrl: cluster["proxy-url"] }),
    credential: credentialOf(path, `users[${userIndex}].user`, users[userIndex]!.user ?? {}, warnings),
    warnings,
  };
}

function read(path: string): v.InferOutput<typeof schema> {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as { code?: string };
    const why = code === "ENOENT" ? "there is no such file; give another one with --kubeconfig" : code === "EACCES" ? "it may not be read by this user; run as root or change its mode" : code === "EISDIR" ? "it is a folder" : String(code);
    throw new KubeconfigError(path, "", why, { cause: error });
  }
  let document: unknown;
  try {
    // The runtime's parser: the library that knows line numbers costs 12 MB of memory, and is loaded for the configuration's errors only.
    document = Bun.YAML.parse(source);
  } catch {
    // Without its message: that would quote the line, and the line may be a key.
    throw new KubeconfigError(path, "", "it is not YAML");
  }
  if (document === null || typeof document !== "object" || Array.isArray(document)) throw new KubeconfigError(path, "", "it is empty or no mapping; expected apiVersion: v1, kind: Config");
  const result = v.safeParse(schema, document);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new KubeconfigError(path, v.getDotPath(issue) ?? "", `expected ${issue.expected ?? "another shape"}`);
}

function serverOf(path: string, field: string, server: string | undefined): string {
  if (server === undefined || server === "") throw new KubeconfigError(path, field, "is missing; expected https://HOST:PORT");
  if (!URL.canParse(server)) throw new KubeconfigError(path, field, "is not a URL; expected https://HOST:PORT");
  const url = new URL(server);
  if (url.protocol !== "https:") throw new KubeconfigError(path, field, `uses ${url.protocol}//; expected https://`);
  if (url.pathname !== "/" || url.search !== "") throw new KubeconfigError(path, field, "carries a path; expected https://HOST:PORT alone");
  return url.origin;
}

function credentialOf(path: string, at: string, user: v.InferOutput<typeof userSchema>, warnings: string[]): Credential {
  for (const field of ["exec", "auth-provider"] as const) {
    if (user[field] !== undefined && user[field] !== null) throw new KubeconfigError(path, `${at}.${field}`, "runs a program to log in, which cannot work on an unattended node; use a client certificate or a token");
  }
  if (user.username !== undefined) throw new KubeconfigError(path, `${at}.username`, "basic authentication was removed from Kubernetes; use a client certificate or a token");
  const hasCertificate = (user["client-certificate-data"] ?? user["client-certificate"]) !== undefined;
  if (hasCertificate) return certificateCredential(path, at, user, warnings);
  if (user.tokenFile !== undefined) {
    const file = resolved(path, user.tokenFile);
    const token = watched([file], () => fileContent(path, `${at}.tokenFile`, file).trim());
    if (token() === "") throw new KubeconfigError(path, `${at}.tokenFile`, "names an empty file");
    return { kind: "token", read: token };
  }
  const { token } = user;
  if (token === undefined || token.trim() === "") throw new KubeconfigError(path, at, "holds neither client-certificate(-data) and client-key(-data) nor token or tokenFile");
  return { kind: "token", read: () => token.trim() };
}

function certificateCredential(path: string, at: string, user: v.InferOutput<typeof userSchema>, warnings: string[]): Credential {
  const load = () => {
    const certPem = content(path, `${at}.client-certificate`, user["client-certificate-data"], user["client-certificate"])!;
    const keyPem = content(path, `${at}.client-key`, user["client-key-data"], user["client-key"]);
    if (keyPem === undefined) throw new KubeconfigError(path, `${at}.client-key-data`, "is missing beside the client certificate");
    checkCertificates(path, `${at}.client-certificate`, certPem);
    let matches: boolean;
    try {
      matches = new X509Certificate(certPem).checkPrivateKey(createPrivateKey(keyPem));
    } catch {
      throw new KubeconfigError(path, `${at}.client-key`, "is no PEM private key");
    }
    if (!matches) throw new KubeconfigError(path, `${at}.client-key`, "does not belong to the client certificate");
    return { certPem, keyPem };
  };
  const { certPem } = load();
  const { validTo } = new X509Certificate(certPem);
  if (Date.parse(validTo) < Date.now()) warnings.push(`kubeconfig "${path}": ${at}.client-certificate expired at ${validTo}; what is kept is served, the API server will refuse anything new`);
  const files = [user["client-certificate"], user["client-key"]].filter((file) => file !== undefined).map((file) => resolved(path, file));
  return { kind: "certificate", read: watched(files, load) };
}

/** Reads anew when a file's time changes; a new content that cannot be used leaves the old one standing. */
function watched<T>(files: readonly string[], load: () => T): () => T {
  let held = load();
  let stamp = stampOf(files);
  let lookedAtMs = performance.now();
  return () => {
    if (files.length === 0 || performance.now() - lookedAtMs < STAT_EVERY_MS) return held;
    lookedAtMs = performance.now();
    const now = stampOf(files);
    if (now === stamp) return held;
    try {
      held = load();
      stamp = now;
    } catch {
      // Half written, or broken: looked at again in a second.
    }
    return held;
  };
}

function stampOf(files: readonly string[]): string {
  return files.map((file) => {
    try {
      const { mtimeMs, ino, size } = statSync(file);
      return `${mtimeMs}/${ino}/${size}`;
    } catch {
      return "missing";
    }
  }).join();
}

function content(path: string, field: string, data: string | undefined, file: string | undefined): string | undefined {
  if (data !== undefined && data !== "") {
    if (!/^[A-Za-z0-9+/=\s]+$/.test(data)) throw new KubeconfigError(path, `${field}-data`, "is not base64");
    return Buffer.from(data, "base64").toString("utf8");
  }
  return file === undefined || file === "" ? undefined : fileContent(path, field, resolved(path, file));
}

function fileContent(path: string, field: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new KubeconfigError(path, field, `names "${file}", which cannot be read (${(error as { code?: string }).code})`, { cause: error });
  }
}

function resolved(path: string, file: string): string {
  return isAbsolute(file) ? file : join(dirname(path), file);
}

function checkCertificates(path: string, field: string, text: string): void {
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (found.length === 0) throw new Error("none");
    for (const one of found) new X509Certificate(one);
  } catch {
    throw new KubeconfigError(path, field, "holds no PEM certificate");
  }
}
