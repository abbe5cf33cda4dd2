/**
 * The shape of the configuration file, and of the bounds in it.
 *
 * Strict: a field nobody knows is an error, because a misspelt bound that is
 * silently ignored shows itself months later. To add a field: a line here, one
 * in `config.ts`'s Config, one in README's table.
 */

import * as v from "valibot";
import { parseDurationMs, parseSizeBytes } from "../base/units.ts";

/** Bounds. */
export interface Limits {
  /** A scope with more items is passed through. Default 20000. */
  readonly scopeMaxItems: number;
  /** The same in bytes of items. Default 128Mi. */
  readonly scopeMaxBytes: number;
  /** The database's quota. Default 512Mi. */
  readonly storeMaxBytes: number;
  /** Recent events a scope keeps for its watchers. Default 1024. */
  readonly ringMaxEvents: number;
  /** The same in bytes. Default 1Mi. */
  readonly ringMaxBytes: number;
  /** Recent events of all scopes together, in bytes. Default 12Mi. */
  readonly allRingsMaxBytes: number;
  /** How long a scope is followed after its last use. Default 5m. */
  readonly lingerMs: number;
  /** How long rows nobody used are kept while online. Default 168h. */
  readonly retentionMs: number;
  /** How often watchers get a bookmark. Default 45s. */
  readonly bookmarkIntervalMs: number;
  /** Kubelet's lease goes up at most this often while nothing but its renewTime changes. Default 0: each renewal. */
  readonly leaseIntervalMs: number;
  /** How long into a cut Secrets are answered to callers other than the node. Default 24h; 0 answers none. */
  readonly podSecretsMs: number;
}

const optionalText = v.optional(v.string());
const durationFrom = (leastMs: number, example: string, mostMs = Number.MAX_SAFE_INTEGER) => {
  const isFit = (text: string) => {
    const ms = parseDurationMs(text);
    return ms !== undefined && ms >= leastMs && ms <= mostMs;
  };
  return v.optional(
    v.pipe(
      v.string("duration"),
      v.check(isFit, `a duration such as "45s", "5m" or "168h", ${example}`),
      v.transform((text) => parseDurationMs(text)!),
    ),
  );
};
const size = v.optional(
  v.pipe(
    v.union([v.string(), v.number()]),
    v.transform(String),
    v.check((text) => (parseSizeBytes(text) ?? 0) > 0, 'a size such as "64Mi", more than 0'),
    v.transform((text) => parseSizeBytes(text)!),
  ),
);
const count = v.optional(
  v.pipe(
    v.number(),
    v.check((value) => Number.isInteger(value) && value >= 1, "a whole number, 1 or more"),
  ),
);
const SERVICE_ACCOUNT =
  /^system:serviceaccount:[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?:[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?$/;
const MAX_NAMED_ACCOUNTS = 64;
const serviceAccounts = v.optional(
  v.pipe(
    v.array(
      v.pipe(
        v.string(),
        v.check(
          (text) => SERVICE_ACCOUNT.test(text),
          'a service account by its user name, such as "system:serviceaccount:kube-system:multus"',
        ),
      ),
    ),
    v.check((names) => names.length <= MAX_NAMED_ACCOUNTS, `a list of ${MAX_NAMED_ACCOUNTS} at most`),
  ),
);
/** A timer of more days than this fires at once: 2^31 ms. */
const TIMER_MAX_MS = 576 * 3_600_000;

/** Fields of `limits`. */
export const limitsSchema = v.strictObject({
  scopeMaxItems: count,
  scopeMaxBytes: size,
  storeMaxBytes: size,
  ringMaxEvents: count,
  ringMaxBytes: size,
  allRingsMaxBytes: size,
  linger: durationFrom(0, "576h at most", TIMER_MAX_MS),
  retention: durationFrom(60_000, "1m at least"),
  bookmarkInterval: durationFrom(1_000, "from 1s to 576h", TIMER_MAX_MS),
  leaseInterval: durationFrom(0, "30s at most: the control plane waits 40s or 50s", 30_000),
  podSecrets: durationFrom(0, "0s for none"),
});

/** Fields of one of `clients`. */
export const clientSchema = v.strictObject({ name: v.string(), kubeconfig: v.string() });

/** Fields of `certificates`. */
export const certificatesSchema = v.strictObject({
  rotateNodeClient: v.optional(v.boolean()),
  kubeletServing: v.optional(v.boolean()),
});

/** `tunnel`: a word, or where it leads. */
const tunnelSchema = v.union([
  v.literal("off"),
  v.strictObject({ gateways: v.pipe(v.array(v.string()), v.minLength(1)), caFile: v.optional(v.string()) }),
]);

/** As Kubernetes names ports. */
const port = v.pipe(
  v.number(),
  v.check((value) => Number.isInteger(value) && value >= 1 && value <= 65_535, "a port, 1 to 65535"),
);
const HOST = /^(?=.{1,253}$)[0-9A-Za-z]([-.:0-9A-Za-z]*[0-9A-Za-z])?$/;
const MAX_HOSTS = 8;

/** Fields of `place`. */
export const placeSchema = v.strictObject({
  hosts: v.pipe(
    v.array(
      v.pipe(
        v.string(),
        v.check((text) => HOST.test(text), 'an address or a DNS name without a port, such as "203.0.113.7"'),
      ),
    ),
    v.check((hosts) => hosts.length >= 1 && hosts.length <= MAX_HOSTS, `a list of 1 to ${MAX_HOSTS}`),
  ),
  port,
});
/** Fields of `podAccess`. */
export const podAccessSchema = v.strictObject({ serviceAddress: v.string(), listen: v.string() });

/** Fields of `page`. */
const pageSchema = v.strictObject({
  listen: v.string(),
  hosts: v.optional(
    v.pipe(
      v.array(v.string()),
      v.check((hosts) => hosts.length <= MAX_HOSTS, `a list of ${MAX_HOSTS} at most`),
    ),
  ),
});

/** The file. */
export const fileSchema = v.strictObject({
  apiVersion: v.literal("holdfast.dev/v1alpha1"),
  kind: v.literal("HoldfastConfiguration"),
  kubeconfig: optionalText,
  servers: v.optional(v.array(v.string())),
  listen: v.optional(v.union([v.string(), v.array(v.string())])),
  healthListen: optionalText,
  stateDir: optionalText,
  clientCAFile: optionalText,
  adminSocket: optionalText,
  witness: v.optional(v.boolean()),
  claimNode: v.optional(v.boolean()),
  page: v.optional(pageSchema),
  logLevel: v.optional(v.picklist(["info", "warn", "error"])),
  tunnel: v.optional(tunnelSchema),
  clients: v.optional(v.array(clientSchema)),
  nodeAgents: serviceAccounts,
  expiredTokensFor: serviceAccounts,
  certificates: v.optional(certificatesSchema),
  place: v.optional(placeSchema),
  podAccess: v.optional(podAccessSchema),
  fleetSize: count,
  limits: v.optional(limitsSchema),
});

/** What a file may say; without one, nothing. */
export type FileConfig = Partial<v.InferOutput<typeof fileSchema>>;

/** Multus, and Calico as its manifest and as its operator install it. */
export const DEFAULT_NODE_AGENTS: readonly string[] = [
  "system:serviceaccount:kube-system:multus",
  "system:serviceaccount:kube-system:calico-node",
  "system:serviceaccount:kube-system:calico-cni-plugin",
  "system:serviceaccount:calico-system:calico-node",
  "system:serviceaccount:calico-system:calico-cni-plugin",
];

/** The bounds with their defaults. */
export function limitsOf(file: NonNullable<FileConfig["limits"]> = {}): Limits {
  return {
    scopeMaxItems: file.scopeMaxItems ?? 20_000,
    scopeMaxBytes: file.scopeMaxBytes ?? 128 * 2 ** 20,
    storeMaxBytes: file.storeMaxBytes ?? 512 * 2 ** 20,
    ringMaxEvents: file.ringMaxEvents ?? 1_024,
    ringMaxBytes: file.ringMaxBytes ?? 2 ** 20,
    allRingsMaxBytes: file.allRingsMaxBytes ?? 12 * 2 ** 20,
    lingerMs: file.linger ?? 5 * 60_000,
    retentionMs: file.retention ?? 168 * 3_600_000,
    bookmarkIntervalMs: file.bookmarkInterval ?? 45_000,
    leaseIntervalMs: file.leaseInterval ?? 0,
    podSecretsMs: file.podSecrets ?? 24 * 3_600_000,
  };
}
