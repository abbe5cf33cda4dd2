/**
 * A kubeconfig, read as kubectl reads it, with errors that say what to mend.
 *
 * Only what an unattended daemon can use is taken: certificates and tokens.
 * Only the current context's cluster and user are judged; what lies beside
 * them is none of our business. Messages name the file, the field, the shape
 * of what stands there and the next step, never a value.
 *
 * Invariant: a credential's files may be replaced at any time, also one after
 * the other; what is handed out is always a whole, matching pair.
 */

import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { systemClock, type Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { jsonLog, type Log } from "../base/log.ts";
import type { Credential } from "../kube/credential.ts";

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

/** What is wrong with a kubeconfig; stable. */
export type KubeconfigCode =
  | "KUBECONFIG_UNREADABLE" // the file is missing, forbidden or a folder
  | "KUBECONFIG_EMPTY"
  | "KUBECONFIG_NOT_YAML"
  | "KUBECONFIG_FIELD" // missing, of another type, or not the text it should be
  | "KUBECONFIG_CONTEXT" // a name that leads nowhere
  | "KUBECONFIG_UNSUPPORTED" // known to kubectl, no use here
  | "KUBECONFIG_FILE" // a file it names cannot be read
  | "KUBECONFIG_KEY_MISMATCH";

/** A kubeconfig cannot be used. */
export class KubeconfigError extends EdgeError {
  override readonly name = "KubeconfigError";

  constructor(
    readonly path: string,
    readonly field: string,
    readonly code: KubeconfigCode,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`Cannot use kubeconfig "${path}": ${field === "" ? "" : `${field} `}${problem}`, options);
  }
}

/** For tests; the machine's clock and the daemon's log by default. */
export interface KubeconfigOptions {
  readonly clock?: Clock;
  /** Is told when a credential's new file cannot be used. */
  readonly log?: Log;
}

const text = v.optional(v.nullable(v.string()));
const anything = v.optional(v.unknown());
const named = (field: string) =>
  v.optional(v.nullable(v.array(v.looseObject({ name: v.string(), [field]: v.unknown() }))));
const schema = v.looseObject({
  apiVersion: text,
  kind: text,
  "current-context": text,
  clusters: named("cluster"),
  users: named("user"),
  contexts: named("context"),
  preferences: anything,
  extensions: anything,
});
const contextSchema = v.looseObject({ cluster: v.string(), user: v.string(), namespace: text, extensions: anything });
const clusterSchema = v.looseObject({
  server: text,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": v.optional(v.nullable(v.boolean())),
  "tls-server-name": text,
  "proxy-url": text,
  "disable-compression": anything,
  extensions: anything,
});
const userSchema = v.looseObject({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  exec: anything,
  "auth-provider": anything,
  username: text,
  password: text,
  as: anything,
  "as-uid": anything,
  "as-groups": anything,
  "as-user-extra": anything,
  extensions: anything,
});
type User = v.InferOutput<typeof userSchema>;

/** Files are looked at no more often than this. */
const STAT_EVERY_MS = 1_000;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const PRIVATE_KEY = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]+?-----END \1-----/;

/**
 * Loads a kubeconfig's current context.
 *
 * @throws {KubeconfigError} naming file, field and remedy.
 */
export function loadKubeconfig(path: string, options: KubeconfigOptions = {}): Kubeconfig {
  return new Reader(resolve(path), options.clock ?? systemClock, options.log ?? jsonLog()).load();
}

class Reader {
  readonly #warnings: string[] = [];
  readonly #unknown: string[] = [];

  constructor(
    private readonly path: string,
    private readonly clock: Clock,
    private readonly log: Log,
  ) {}

  load(): Kubeconfig {
    const document = this.#judged("", schema, this.#document());
    const context = this.#entry(document, "context", contextSchema, "current-context", document["current-context"]);
    const cluster = this.#entry(document, "cluster", clusterSchema, `${context.at}.cluster`, context.value.cluster);
    const user = this.#entry(document, "user", userSchema, `${context.at}.user`, context.value.user);
    if (cluster.value["insecure-skip-tls-verify"] === true) {
      throw this.#error(
        `${cluster.at}.insecure-skip-tls-verify`,
        "KUBECONFIG_UNSUPPORTED",
        "is true, and Holdfast never talks to an API server that it cannot verify; remove it and give the CA in certificate-authority-data",
      );
    }
    const { "tls-server-name": tlsServerName } = cluster.value;
    const proxyUrl = this.#proxyUrl(`${cluster.at}.proxy-url`, cluster.value["proxy-url"]);
    const kubeconfig = {
      server: this.#server(`${cluster.at}.server`, cluster.value.server),
      caPem: this.#ca(cluster.at, cluster.value),
      ...(isBlank(tlsServerName) ? {} : { tlsServerName }),
      ...(proxyUrl === undefined ? {} : { proxyUrl }),
      credential: this.#credential(user.at, user.value),
    };
    if (this.#unknown.length > 0) this.#warn(`unknown fields are ignored: ${this.#unknown.join(", ")}`);
    return { ...kubeconfig, warnings: this.#warnings };
  }

  #document(): unknown {
    let source: string;
    try {
      source = readFileSync(this.path, "utf8");
    } catch (error) {
      const { code } = error as { code?: string };
      const why =
        code === "ENOENT"
          ? "there is no such file; give another one with --kubeconfig"
          : code === "EACCES"
            ? "this user may not read it; run as root or change its owner"
            : code === "EISDIR"
              ? "it is a folder; name the file in it"
              : `it cannot be read (${code})`;
      throw this.#error("", "KUBECONFIG_UNREADABLE", why, error);
    }
    if (source.trim() === "")
      throw this.#error(
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
      throw this.#error(
        "",
        "KUBECONFIG_NOT_YAML",
        "it is neither YAML nor JSON; check it with kubectl config view --kubeconfig FILE",
      );
    }
    if (document === null || typeof document !== "object" || Array.isArray(document)) {
      throw this.#error(
        "",
        document === null ? "KUBECONFIG_EMPTY" : "KUBECONFIG_NOT_YAML",
        `expected a mapping with apiVersion: v1 and kind: Config, found ${shapeOf(document)}`,
      );
    }
    return document;
  }

  /** The cluster, user or context of a name. */
  #entry<S extends v.GenericSchema>(
    document: v.InferOutput<typeof schema>,
    kind: "cluster" | "user" | "context",
    entrySchema: S,
    from: string,
    name: string | null | undefined,
  ): { readonly at: string; readonly value: v.InferOutput<S> } {
    if (isBlank(name))
      throw this.#error(
        from,
        "KUBECONFIG_CONTEXT",
        `is not set; ${kind === "context" ? "choose one with kubectl config use-context NAME" : `name one of ${kind}s`}`,
      );
    const entries = document[`${kind}s`] ?? [];
    const index = entries.findIndex((entry) => entry.name === name);
    if (index < 0)
      throw this.#error(
        from,
        "KUBECONFIG_CONTEXT",
        `names "${name}", which is not among the ${entries.length} ${kind}s of the file`,
      );
    const at = `${kind}s[${index}].${kind}`;
    return { at, value: this.#judged(at, entrySchema, entries[index]![kind] ?? {}) };
  }

  /** What a schema makes of a value; fields that it does not know are noted. */
  #judged<S extends v.GenericSchema>(at: string, wanted: S, value: unknown): v.InferOutput<S> {
    const result = v.safeParse(wanted, value);
    const below = (field: string) => [at, field].filter((part) => part !== "").join(".");
    if (!result.success) {
      const issue = result.issues[0];
      const keys = (issue.path ?? [])
        .map(({ key }) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
        .join("");
      const field = below(keys.replace(/^\./, ""));
      if (issue.input === undefined) throw this.#error(field, "KUBECONFIG_FIELD", "is missing; add it");
      throw this.#error(
        field,
        "KUBECONFIG_FIELD",
        `should be ${issue.type === "string" ? "text" : issue.type === "boolean" ? "true or false" : issue.type === "array" ? "a list" : "a mapping"}, and is ${shapeOf(issue.input)}; correct it`,
      );
    }
    const known = (wanted as unknown as { entries: object }).entries;
    for (const field of Object.keys(value as object)) if (!(field in known)) this.#unknown.push(below(field));
    return result.output;
  }

  #server(field: string, server: string | null | undefined): string {
    if (isBlank(server)) throw this.#error(field, "KUBECONFIG_FIELD", "is missing; expected https://HOST:PORT");
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
      throw this.#error(field, "KUBECONFIG_FIELD", `${problem}; expected https://HOST:PORT alone`);
    return url!.origin;
  }

  #proxyUrl(field: string, proxyUrl: string | null | undefined): string | undefined {
    if (isBlank(proxyUrl)) return undefined;
    const scheme = URL.canParse(proxyUrl) ? new URL(proxyUrl).protocol : undefined;
    // Its value may hold a password.
    if (scheme !== "http:" && scheme !== "https:")
      throw this.#error(
        field,
        "KUBECONFIG_UNSUPPORTED",
        `is ${scheme === undefined ? "not a URL" : `a ${scheme}// proxy`}; expected http://HOST:PORT or https://HOST:PORT`,
      );
    return proxyUrl;
  }

  #ca(at: string, cluster: v.InferOutput<typeof clusterSchema>): string {
    const found = this.#content(
      at,
      "certificate-authority",
      cluster["certificate-authority-data"],
      cluster["certificate-authority"],
    );
    if (found === undefined)
      throw this.#error(
        `${at}.certificate-authority-data`,
        "KUBECONFIG_FIELD",
        "is missing; without the cluster's CA neither the API server nor local clients can be verified: add it (on a kubeadm node it is /etc/kubernetes/pki/ca.crt)",
      );
    return this.#certificates(found);
  }

  #credential(at: string, user: User): Credential {
    for (const field of ["exec", "auth-provider"] as const) {
      if (user[field] !== undefined && user[field] !== null)
        throw this.#error(
          `${at}.${field}`,
          "KUBECONFIG_UNSUPPORTED",
          "runs a program to log in, which cannot work on an unattended node; use a client certificate or a token",
        );
    }
    for (const field of ["username", "password"] as const) {
      if (!isBlank(user[field]))
        throw this.#error(
          `${at}.${field}`,
          "KUBECONFIG_UNSUPPORTED",
          "is basic authentication, which Kubernetes removed; use a client certificate or a token",
        );
    }
    for (const field of ["as", "as-uid", "as-groups", "as-user-extra"] as const) {
      // Leaving it out silently would act with more rights than were asked for.
      if (!isBlank(user[field] as string | undefined))
        throw this.#error(
          `${at}.${field}`,
          "KUBECONFIG_UNSUPPORTED",
          "asks to act as somebody else, which Holdfast does not do; use that user's own credential",
        );
    }
    const hasToken = !isBlank(user.token) || !isBlank(user.tokenFile);
    if (!isBlank(user["client-certificate-data"]) || !isBlank(user["client-certificate"])) {
      if (hasToken) this.#warn(`${at} holds a client certificate and a token; the certificate is used`);
      return this.#certificateCredential(at, user);
    }
    if (!hasToken)
      throw this.#error(
        at,
        "KUBECONFIG_FIELD",
        "holds neither client-certificate(-data) with client-key(-data) nor token or tokenFile; add one of them",
      );
    // As client-go: a file wins over a value, because it can be renewed.
    const { tokenFile } = user;
    if (!isBlank(tokenFile)) {
      const file = this.#resolved(tokenFile);
      return {
        kind: "token",
        read: this.#watched([file], () => this.#token(`${at}.tokenFile`, this.#fileContent(`${at}.tokenFile`, file))),
      };
    }
    const token = this.#token(`${at}.token`, user.token!);
    return { kind: "token", read: () => token };
  }

  #token(field: string, given: string): string {
    const token = given.trim();
    if (token === "")
      throw this.#error(field, "KUBECONFIG_FIELD", "leads to no token, only to empty text; write the token there");
    if (/[^\x21-\x7e]/.test(token))
      throw this.#error(
        field,
        "KUBECONFIG_FIELD",
        `should be one token, and is ${token.length} characters with spaces or line breaks among them; write the token alone`,
      );
    return token;
  }

  #certificateCredential(at: string, user: User): Credential {
    const load = () => {
      const certificate = this.#content(
        at,
        "client-certificate",
        user["client-certificate-data"],
        user["client-certificate"],
      )!;
      const key = this.#content(at, "client-key", user["client-key-data"], user["client-key"]);
      if (key === undefined)
        throw this.#error(
          `${at}.client-key-data`,
          "KUBECONFIG_FIELD",
          "is missing beside the client certificate; add it, or client-key with a file",
        );
      const certPem = this.#certificates(certificate);
      // Kubelet keeps both in one file: only the key's own block is handed on.
      const [keyPem] = PRIVATE_KEY.exec(key.text) ?? [];
      if (keyPem === undefined)
        throw this.#error(
          key.field,
          "KUBECONFIG_FIELD",
          `should be a PEM private key, and is ${shapeOf(key.text)}; put the key there`,
        );
      let matches: boolean;
      try {
        matches = new X509Certificate(certPem).checkPrivateKey(createPrivateKey(keyPem));
      } catch {
        throw this.#error(
          key.field,
          "KUBECONFIG_FIELD",
          "is a PEM private key that cannot be read; it is damaged, or locked with a password: put a plain key there",
        );
      }
      if (!matches)
        throw this.#error(
          key.field,
          "KUBECONFIG_KEY_MISMATCH",
          `does not belong to ${certificate.field}; give the pair that was issued together`,
        );
      return { certPem, keyPem };
    };
    const files = [
      ...(isBlank(user["client-certificate-data"]) ? [user["client-certificate"]] : []),
      ...(isBlank(user["client-key-data"]) ? [user["client-key"]] : []),
    ]
      .filter((file) => !isBlank(file))
      .map((file) => this.#resolved(file as string));
    const read = this.#watched(files, load);
    const { validTo } = new X509Certificate(read().certPem);
    if (Date.parse(validTo) < this.clock.nowMs())
      this.#warn(
        `${at}.client-certificate expired at ${validTo}; what is kept is served, the API server will refuse anything new: renew it`,
      );
    return { kind: "certificate", read };
  }

  /** Reads anew when a file changes; content that cannot be used leaves the former one standing. */
  #watched<T>(files: readonly string[], load: () => T): () => T {
    // Before the content: what changes between the two is seen at the next look.
    let stamp = stampOf(files);
    let held = load();
    let lookedAtMs = this.clock.monotonicMs();
    let complainedAbout = "";
    return () => {
      if (files.length === 0 || this.clock.monotonicMs() - lookedAtMs < STAT_EVERY_MS) return held;
      lookedAtMs = this.clock.monotonicMs();
      const now = stampOf(files);
      if (now === stamp) return held;
      try {
        held = load();
        stamp = now;
        complainedAbout = "";
      } catch (error) {
        // Half written, or one of two files not there yet: looked at again in a second, told once.
        if (complainedAbout !== now)
          this.log.warn("new credential cannot be used, the former one stands", {
            kubeconfig: this.path,
            reason: (error as Error).message,
          });
        complainedAbout = now;
      }
      return held;
    };
  }

  /** The text of `NAME-data`, or of the file that `NAME` names; data wins, as in client-go. */
  #content(
    at: string,
    name: string,
    data: string | null | undefined,
    file: string | null | undefined,
  ): { readonly field: string; readonly text: string } | undefined {
    if (!isBlank(data)) {
      const field = `${at}.${name}-data`;
      const plain = data.replaceAll(/\s/g, "");
      if (plain.startsWith("-----BEGIN"))
        throw this.#error(
          field,
          "KUBECONFIG_FIELD",
          `should be base64, and is PEM itself; encode it with base64 -w0, or name its file in ${name}`,
        );
      if (!/^[A-Za-z0-9+/]+={0,2}$/.test(plain))
        throw this.#error(
          field,
          "KUBECONFIG_FIELD",
          `should be base64, and is ${data.length} characters with others among them; encode it with base64 -w0`,
        );
      return { field, text: Buffer.from(plain, "base64").toString("utf8") };
    }
    if (isBlank(file)) return undefined;
    const field = `${at}.${name}`;
    return { field, text: this.#fileContent(field, this.#resolved(file)) };
  }

  #fileContent(field: string, file: string): string {
    try {
      return readFileSync(file, "utf8");
    } catch (error) {
      const { code } = error as { code?: string };
      const why =
        code === "ENOENT"
          ? "which is not there; put it there or name another"
          : code === "EACCES"
            ? "which this user may not read; run as root or change its owner"
            : `which cannot be read (${code})`;
      throw this.#error(field, "KUBECONFIG_FILE", `names "${file}", ${why}`, error);
    }
  }

  /** The certificates of a text, without what stands around them. */
  #certificates({ field, text: found }: { readonly field: string; readonly text: string }): string {
    const blocks = found.match(CERTIFICATE) ?? [];
    if (blocks.length === 0)
      throw this.#error(
        field,
        "KUBECONFIG_FIELD",
        `should be PEM certificates, and is ${shapeOf(found)}; put them there`,
      );
    for (const [index, block] of blocks.entries()) {
      try {
        new X509Certificate(block);
      } catch {
        throw this.#error(
          field,
          "KUBECONFIG_FIELD",
          `holds ${blocks.length} PEM certificates, of which number ${index + 1} cannot be read; copy it anew`,
        );
      }
    }
    return `${blocks.join("\n")}\n`;
  }

  #resolved(file: string): string {
    return resolve(dirname(this.path), file);
  }

  #warn(problem: string): void {
    this.#warnings.push(`kubeconfig "${this.path}": ${problem}`);
  }

  #error(field: string, code: KubeconfigCode, problem: string, cause?: unknown): KubeconfigError {
    return new KubeconfigError(this.path, field, code, problem, cause === undefined ? undefined : { cause });
  }
}

function isBlank(value: string | null | undefined): value is "" | null | undefined {
  return value === undefined || value === null || value === "";
}

/** What kind of thing a value is, and how large; never the value. */
function shapeOf(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (typeof value === "string") return value === "" ? "empty text" : `${value.length} characters of text`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === "object" ? "a mapping" : `a ${typeof value}`;
}

function stampOf(files: readonly string[]): string {
  return files
    .map((file) => {
      try {
        const { mtimeMs, ino, size } = statSync(file);
        return `${mtimeMs}/${ino}/${size}`;
      } catch {
        return "missing";
      }
    })
    .join();
}
