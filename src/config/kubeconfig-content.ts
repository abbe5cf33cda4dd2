/**
 * What a kubeconfig's current context says at one moment, read as kubectl reads it.
 *
 * Only the current context's cluster and user are judged; what lies beside
 * them is none of our business.
 */

import type * as v from "valibot";
import type { ReadFile } from "./followed.ts";
import { credentialOf, type CredentialContent } from "./kubeconfig-credential.ts";
import { clusterSchema, contextSchema, documentSchema, userSchema, type Cluster } from "./kubeconfig-schema.ts";
import { isBlank, shapeOf, Sheet } from "./kubeconfig-sheet.ts";

/** The current context's content. */
export interface KubeconfigContent {
  readonly server: string;
  readonly caPem: string;
  readonly tlsServerName?: string;
  readonly proxyUrl?: string;
  readonly credential: CredentialContent;
  /** Where the user stands, for messages. */
  readonly userAt: string;
  readonly warnings: readonly string[];
}

/** Reads it. @throws {KubeconfigError} naming file, field and remedy. */
export function readKubeconfig(path: string, read: ReadFile): KubeconfigContent {
  const sheet = new Sheet(path, read);
  const document = sheet.judged("", documentSchema, documentOf(sheet, read));
  const context = entryOf(sheet, document, "context", contextSchema, "current-context", document["current-context"]);
  const cluster = entryOf(sheet, document, "cluster", clusterSchema, `${context.at}.cluster`, context.value.cluster);
  const user = entryOf(sheet, document, "user", userSchema, `${context.at}.user`, context.value.user);
  if (cluster.value["insecure-skip-tls-verify"] === true) {
    throw sheet.error(
      `${cluster.at}.insecure-skip-tls-verify`,
      "KUBECONFIG_UNSUPPORTED",
      "is true, and Holdfast never talks to an API server that it cannot verify; remove it and give the CA in certificate-authority-data",
    );
  }
  const { "tls-server-name": tlsServerName } = cluster.value;
  const proxyUrl = proxyUrlOf(sheet, `${cluster.at}.proxy-url`, cluster.value["proxy-url"]);
  const content = {
    server: serverOf(sheet, `${cluster.at}.server`, cluster.value.server),
    caPem: authorityOf(sheet, cluster.at, cluster.value),
    ...(isBlank(tlsServerName) ? {} : { tlsServerName }),
    ...(proxyUrl === undefined ? {} : { proxyUrl }),
    credential: credentialOf(sheet, user.at, user.value),
    userAt: user.at,
  };
  if (sheet.unknown.length > 0) sheet.warn(`unknown fields are ignored: ${sheet.unknown.join(", ")}`);
  return { ...content, warnings: sheet.warnings };
}

function documentOf(sheet: Sheet, read: ReadFile): unknown {
  let source: string;
  try {
    source = read(sheet.path);
  } catch (error) {
    throw sheet.error("", "KUBECONFIG_UNREADABLE", whyUnreadable(error), error);
  }
  if (source.trim() === "")
    throw sheet.error(
      "",
      "KUBECONFIG_EMPTY",
      "the file is empty; copy it anew, or write it with kubectl config view --minify --flatten",
    );
  let document: unknown;
  try {
    // The runtime's parser: the library that knows line numbers costs 12 MB of memory.
    document = Bun.YAML.parse(source);
  } catch {
    // Without its message: that would quote the line, and the line may be a key.
    throw sheet.error(
      "",
      "KUBECONFIG_NOT_YAML",
      "it is neither YAML nor JSON; check it with kubectl config view --kubeconfig FILE",
    );
  }
  if (document === null || typeof document !== "object" || Array.isArray(document)) {
    throw sheet.error(
      "",
      document === null ? "KUBECONFIG_EMPTY" : "KUBECONFIG_NOT_YAML",
      `expected a mapping with apiVersion: v1 and kind: Config, found ${shapeOf(document)}`,
    );
  }
  return document;
}

function whyUnreadable(error: unknown): string {
  const { code } = error as { code?: string };
  switch (code) {
    case "ENOENT":
      return "there is no such file; give another one with --kubeconfig";
    case "EACCES":
      return "this user may not read it; run as root or change its owner";
    case "EISDIR":
      return "it is a folder; name the file in it";
    default:
      return `it cannot be read (${code})`;
  }
}

/** The cluster, user or context of a name. */
function entryOf<S extends v.GenericSchema>(
  sheet: Sheet,
  document: v.InferOutput<typeof documentSchema>,
  kind: "cluster" | "user" | "context",
  entrySchema: S,
  from: string,
  name: string | null | undefined,
): { readonly at: string; readonly value: v.InferOutput<S> } {
  if (isBlank(name))
    throw sheet.error(
      from,
      "KUBECONFIG_CONTEXT",
      `is not set; ${kind === "context" ? "choose one with kubectl config use-context NAME" : `name one of ${kind}s`}`,
    );
  const entries = document[`${kind}s`] ?? [];
  const index = entries.findIndex((entry) => entry.name === name);
  if (index < 0)
    throw sheet.error(
      from,
      "KUBECONFIG_CONTEXT",
      `names "${name}", which is not among the ${entries.length} ${kind}s of the file`,
    );
  const at = `${kind}s[${index}].${kind}`;
  return { at, value: sheet.judged(at, entrySchema, entries[index]![kind] ?? {}) };
}

function serverOf(sheet: Sheet, field: string, server: string | null | undefined): string {
  if (isBlank(server)) throw sheet.error(field, "KUBECONFIG_FIELD", "is missing; expected https://HOST:PORT");
  const url = URL.canParse(server) ? new URL(server) : undefined;
  const problem =
    url === undefined
      ? "is not a URL"
      : url.protocol !== "https:"
        ? `uses ${url.protocol}//`
        : url.username !== "" || url.password !== ""
          ? "carries a user or a password"
          : url.pathname !== "/" || url.search !== "" || url.hash !== ""
            ? "carries a path"
            : undefined;
  if (problem !== undefined)
    throw sheet.error(field, "KUBECONFIG_FIELD", `${problem}; expected https://HOST:PORT alone`);
  return url!.origin;
}

function proxyUrlOf(sheet: Sheet, field: string, proxyUrl: string | null | undefined): string | undefined {
  if (isBlank(proxyUrl)) return undefined;
  const scheme = URL.canParse(proxyUrl) ? new URL(proxyUrl).protocol : undefined;
  // Its value may hold a password.
  if (scheme !== "http:" && scheme !== "https:")
    throw sheet.error(
      field,
      "KUBECONFIG_UNSUPPORTED",
      `is ${scheme === undefined ? "not a URL" : `a ${scheme}// proxy`}; expected http://HOST:PORT or https://HOST:PORT`,
    );
  return proxyUrl;
}

function authorityOf(sheet: Sheet, at: string, cluster: Cluster): string {
  const found = sheet.content(
    at,
    "certificate-authority",
    cluster["certificate-authority-data"],
    cluster["certificate-authority"],
  );
  if (found === undefined)
    throw sheet.error(
      `${at}.certificate-authority-data`,
      "KUBECONFIG_FIELD",
      "is missing; without the cluster's CA neither the API server nor local clients can be verified: add it (on a kubeadm node it is /etc/kubernetes/pki/ca.crt)",
    );
  return sheet.certificates(found);
}
