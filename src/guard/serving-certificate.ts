/**
 * The webhook's serving certificate: made, shared, exchanged in time.
 *
 * Every replica runs the same steps and none leads; the Secret's
 * resourceVersion lets one of them be first and the others read again. Each
 * certificate comes with a CA of its own whose key is thrown away once it has
 * signed: nothing that is kept can sign another.
 *
 *   tls.crt tls.key     served now
 *   next.crt next.key   served next, once every API server has had time to trust it
 *   ca.crt              the CAs of all of them; this is the caBundle
 *
 * A CA leaves the bundle when it has expired, which is no earlier than its
 * certificate: so no replica, however late, serves what is not trusted, and
 * nobody has to be asked whether it is done.
 *
 * Invariant: a certificate is served only after its CA stands in the bundle of
 * every webhook configuration.
 */

import { createHash, createPrivateKey, X509Certificate } from "node:crypto";
import type { V1Secret, V1ValidatingWebhookConfiguration } from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { certificateBlocks } from "../certificates/pem.ts";
import { reads, sent } from "../kube/wire.ts";
import { ApiError, type JsonPatchOperation, type ClusterApi } from "../cluster/api.ts";
import type { ServingKeyPair } from "./webhook.ts";

/** Makes certificates; handed in, because their making is another part's knowledge. */
export interface CertificateMaker {
  /** A CA of its own and a serving certificate signed by it, both P-256, good for `days` from `nowMs`. */
  (request: {
    readonly commonName: string;
    readonly dnsNames: readonly string[];
    readonly ipAddresses: readonly string[];
    readonly days: number;
    readonly nowMs: number;
  }): { readonly caPem: string } & ServingKeyPair;
}

/** What is kept where. */
export interface ServingCertificateOptions {
  readonly api: ClusterApi;
  readonly make: CertificateMaker;
  readonly clock: Clock;
  readonly log: Log;
  readonly namespace: string;
  /** Default holdfast-guard-tls. */
  readonly secretName?: string;
  /** Default holdfast-guard: the Service, whose names are certified. */
  readonly serviceName?: string;
  /** More names or addresses to certify. */
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  /** Of both webhook configurations. Default holdfast-guard. */
  readonly configurationName?: string;
  /** Default 90. */
  readonly days?: number;
}

const CONFIGURATION_NAME = "holdfast-guard";
const DAY_MS = 86_400_000;
const DAYS = 90;
/** From "in every bundle" to "served": API servers follow their configurations by a watch. */
const TRUST_MS = 60_000;
const SINCE = "holdfast.dev/next-since";
const TRIES = 8;

const text = v.string();
const secretSchema = reads<V1Secret>()(
  v.object({
    metadata: v.looseObject({ resourceVersion: text, annotations: v.nullish(v.record(text, text), {}) }),
    data: v.nullish(v.record(text, text), {}),
  }),
);
const configurationSchema = reads<V1ValidatingWebhookConfiguration>()(
  v.object({
    webhooks: v.nullish(
      v.array(v.object({ name: text, clientConfig: v.object({ caBundle: v.nullish(text, "") }) })),
      [],
    ),
  }),
);

/** The Secret's contents, decoded. */
interface Kept {
  readonly resourceVersion: string;
  readonly current: ServingKeyPair;
  readonly next: ServingKeyPair | undefined;
  /** When `next` was trusted by all configurations; 0 for not yet. */
  readonly sinceMs: number;
  readonly caPem: string;
}

/**
 * Brings Secret and configurations a step further and says what is to be served now.
 *
 * To be called at start and every half minute, by every replica.
 *
 * @throws {ApiError} when the API server does not answer or refuses; what is served stays good meanwhile.
 */
export async function keepServingCertificate(options: ServingCertificateOptions): Promise<ServingKeyPair> {
  for (let tries = 1; ; tries++) {
    try {
      return await step(options);
    } catch (error) {
      // Another replica was first: what it wrote is read, and judged anew.
      if (!(error instanceof ApiError) || !error.isConflict || tries >= TRIES) throw error;
    }
  }
}

async function step(options: ServingCertificateOptions): Promise<ServingKeyPair> {
  const { clock, log } = options;
  const found = await read(options);
  if (found === undefined) return await begin(options, undefined);
  if (typeof found === "string") {
    log.warn("serving certificate cannot be used, made anew", { secret: secretName(options) });
    return await begin(options, found);
  }
  const nowMs = clock.nowMs();
  const kept = { ...found, caPem: unexpired(found.caPem, nowMs) };
  if (isOver(kept.current, nowMs) && (kept.next === undefined || isOver(kept.next, nowMs)))
    return await begin(options, kept.resourceVersion);
  if (kept.next === undefined && nowMs >= renewalMs(kept.current, days(options))) {
    const { caPem, ...next } = made(options);
    log.info("next serving certificate made", { secret: secretName(options) });
    const renewed = { ...kept, next, sinceMs: 0, caPem: `${kept.caPem}${caPem}` };
    await write(options, renewed);
    await spreadTrust(options, renewed.caPem);
    return kept.current;
  }
  await spreadTrust(options, kept.caPem);
  if (kept.next === undefined) return kept.current;
  if (kept.sinceMs === 0) {
    await write(options, { ...kept, sinceMs: nowMs });
    return kept.current;
  }
  if (nowMs - kept.sinceMs < TRUST_MS) return kept.current;
  await write(options, { ...kept, current: kept.next, next: undefined, sinceMs: 0 });
  log.info("next serving certificate is served from now on", { secret: secretName(options) });
  return kept.next;
}

/** The very first one, or one in place of what nobody can use. */
async function begin(options: ServingCertificateOptions, resourceVersion: string | undefined): Promise<ServingKeyPair> {
  const { caPem, ...current } = made(options);
  await write(options, { resourceVersion: resourceVersion ?? "", current, next: undefined, sinceMs: 0, caPem });
  await spreadTrust(options, caPem);
  return current;
}

function made(options: ServingCertificateOptions) {
  const { namespace, serviceName = "holdfast-guard", dnsNames = [], ipAddresses = [] } = options;
  const service = `${serviceName}.${namespace}.svc`;
  return options.make({
    commonName: service,
    dnsNames: [service, `${service}.cluster.local`, `${serviceName}.${namespace}`, ...dnsNames],
    ipAddresses,
    days: days(options),
    nowMs: options.clock.nowMs(),
  });
}

/** @returns undefined: there is none; a resourceVersion: there is one that cannot be used. */
async function read(options: ServingCertificateOptions): Promise<Kept | string | undefined> {
  const answer = await options.api.readSecret(options.namespace, secretName(options));
  if (answer === undefined) return undefined;
  const { metadata, data } = v.parse(secretSchema, answer);
  const decoded = (key: string) => Buffer.from(data[key] ?? "", "base64").toString("utf8");
  const pair = (name: string): ServingKeyPair | undefined =>
    usable({ certPem: decoded(`${name}.crt`), keyPem: decoded(`${name}.key`) });
  const current = pair("tls");
  const caPem = decoded("ca.crt");
  if (current === undefined || certificateBlocks(caPem).length === 0) return metadata.resourceVersion;
  const sinceMs = Date.parse(metadata.annotations[SINCE] ?? "");
  return {
    resourceVersion: metadata.resourceVersion,
    current,
    next: pair("next"),
    sinceMs: Number.isNaN(sinceMs) ? 0 : sinceMs,
    caPem,
  };
}

/** @throws {ApiError} with a conflict when another replica was first. */
async function write(options: ServingCertificateOptions, kept: Kept): Promise<void> {
  const { current, next, caPem, sinceMs, resourceVersion } = kept;
  const data = {
    "tls.crt": current.certPem,
    "tls.key": current.keyPem,
    "ca.crt": caPem,
    ...(next === undefined ? {} : { "next.crt": next.certPem, "next.key": next.keyPem }),
  };
  const secret = sent<V1Secret>()({
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      name: secretName(options),
      namespace: options.namespace,
      labels: { "app.kubernetes.io/name": "holdfast", "app.kubernetes.io/component": "guard" },
      annotations: sinceMs === 0 ? {} : { [SINCE]: new Date(sinceMs).toISOString() },
      ...(resourceVersion === "" ? {} : { resourceVersion }),
    },
    type: "kubernetes.io/tls",
    data: Object.fromEntries(Object.entries(data).map(([key, value]) => [key, base64(value)])),
  });
  const { api, namespace } = options;
  if (resourceVersion === "") await api.createSecret(namespace, secret);
  else await api.replaceSecret(namespace, secretName(options), secret);
}

/** Writes the bundle into every configuration where it differs; one that is not installed is passed over. */
async function spreadTrust(options: ServingCertificateOptions, caPem: string): Promise<void> {
  const bundle = base64(caPem);
  const { api, configurationName = CONFIGURATION_NAME } = options;
  for (const kind of ["validating", "mutating"] as const) {
    const answer = await api.readWebhooks(kind, configurationName);
    if (answer === undefined) continue;
    const { webhooks } = v.parse(configurationSchema, answer);
    // Tested by name: between reading and patching somebody may have put entries in another order.
    const patch = webhooks.flatMap(({ name: entry, clientConfig }, index): JsonPatchOperation[] =>
      clientConfig.caBundle === bundle
        ? []
        : [
            { op: "test", path: `/webhooks/${index}/name`, value: entry },
            { op: "add", path: `/webhooks/${index}/clientConfig/caBundle`, value: bundle },
          ],
    );
    if (patch.length > 0) await api.patchWebhooks(kind, configurationName, patch);
  }
}

/**
 * Between 70 % and 90 % of its life. The draw is the certificate's own: all
 * replicas come to the same moment without asking each other.
 */
function renewalMs({ certPem }: ServingKeyPair, lifeDays: number): number {
  const draw = createHash("sha256").update(certPem).digest().readUInt32BE(0) / 2 ** 32;
  return notAfterMs(certPem) - lifeDays * DAY_MS * (0.3 - 0.2 * draw);
}

function usable(pair: ServingKeyPair): ServingKeyPair | undefined {
  try {
    return new X509Certificate(pair.certPem).checkPrivateKey(createPrivateKey(pair.keyPem)) ? pair : undefined;
  } catch {
    return undefined;
  }
}

function unexpired(caPem: string, nowMs: number): string {
  return certificateBlocks(caPem)
    .filter((pem) => notAfterMs(pem) > nowMs)
    .map((pem) => `${pem}\n`)
    .join("");
}

function isOver({ certPem }: ServingKeyPair, nowMs: number): boolean {
  return nowMs >= notAfterMs(certPem);
}

function notAfterMs(certPem: string): number {
  return Date.parse(new X509Certificate(certPem).validTo);
}

function days({ days: given = DAYS }: ServingCertificateOptions): number {
  return given;
}

function secretName({ secretName: name = "holdfast-guard-tls" }: ServingCertificateOptions): string {
  return name;
}

function base64(value: string): string {
  return Buffer.from(value).toString("base64");
}
