/**
 * What a pod needs to be started again on its node: read off its spec.
 *
 *   objects    ConfigMaps and Secrets (environment, volumes, projections), claims
 *   tokens     of its service account, one for each audience
 *   images     of containers, init containers and image volumes
 *   unsure     volumes and devices whose ground is not this machine's: nobody
 *              here can tell whether it would be there
 *
 * Kubelet forgives an optional object that is not there, but not one that it
 * cannot ask for: that there is none must have been observed. A pull secret
 * that is missing it only warns of, so it is not needed.
 */

import * as v from "valibot";

/** An object that the pod names. */
export interface NeededObject {
  readonly resource: "configmaps" | "secrets" | "persistentvolumeclaims";
  readonly name: string;
  readonly isOptional: boolean;
}

/** An image, and whether it is pulled at each start. */
export interface NeededImage {
  readonly image: string;
  readonly isPulledAlways: boolean;
}

/** What a pod needs. */
export interface PodNeeds {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** Read by kubelet from a file of this machine: it needs nothing of the API server. */
  readonly isStatic: boolean;
  readonly isHostNetwork: boolean;
  readonly serviceAccount: string;
  readonly images: readonly NeededImage[];
  readonly objects: readonly NeededObject[];
  /** Audiences of its tokens; "" is the API server's own. */
  readonly audiences: readonly string[];
  /** In words. */
  readonly unsure: readonly string[];
}

/** One thing that a pod misses, or that nobody here can tell. */
export interface Gap {
  /** What kind of thing: image, ConfigMap, Secret, token, claim, volume, network, node. */
  readonly kind: string;
  /** Which; never a content. */
  readonly name: string;
  /** Why, in a few words. */
  readonly why: string;
}

const named = v.object({ name: v.optional(v.string(), ""), optional: v.optional(v.boolean(), false) });
const projection = v.object({
  configMap: v.optional(named),
  secret: v.optional(named),
  serviceAccountToken: v.optional(v.object({ audience: v.optional(v.string(), "") })),
});
const volume = v.looseObject({
  name: v.string(),
  configMap: v.optional(named),
  secret: v.optional(v.object({ secretName: v.optional(v.string(), ""), optional: v.optional(v.boolean(), false) })),
  projected: v.optional(v.object({ sources: v.optional(v.nullable(v.array(projection)), []) })),
  persistentVolumeClaim: v.optional(v.object({ claimName: v.string() })),
  image: v.optional(v.object({ reference: v.optional(v.string(), ""), pullPolicy: v.optional(v.string(), "") })),
});
const container = v.object({
  image: v.optional(v.string(), ""),
  imagePullPolicy: v.optional(v.string(), ""),
  env: v.optional(
    v.array(
      v.object({
        valueFrom: v.optional(v.object({ configMapKeyRef: v.optional(named), secretKeyRef: v.optional(named) })),
      }),
    ),
    [],
  ),
  envFrom: v.optional(v.array(v.object({ configMapRef: v.optional(named), secretRef: v.optional(named) })), []),
});
const podSchema = v.object({
  metadata: v.object({
    namespace: v.optional(v.string(), "default"),
    name: v.string(),
    uid: v.optional(v.string(), ""),
    annotations: v.optional(v.record(v.string(), v.string()), {}),
    deletionTimestamp: v.optional(v.string()),
  }),
  spec: v.object({
    hostNetwork: v.optional(v.boolean(), false),
    serviceAccountName: v.optional(v.string(), "default"),
    runtimeClassName: v.optional(v.string(), ""),
    volumes: v.optional(v.array(volume), []),
    containers: v.optional(v.array(container), []),
    initContainers: v.optional(v.array(container), []),
    resourceClaims: v.optional(v.array(v.unknown()), []),
  }),
  status: v.optional(v.object({ phase: v.optional(v.string(), "") })),
});
type Volume = v.InferOutput<typeof volume>;
type Container = v.InferOutput<typeof container>;

/** The ground of these volumes is the machine itself. */
const LOCAL_VOLUMES: ReadonlySet<string> = new Set(["emptyDir", "hostPath", "downwardAPI"]);
/** Fields of a volume that are read above. */
const READ_VOLUMES: ReadonlySet<string> = new Set([
  ...["name", "configMap", "secret", "projected", "persistentVolumeClaim", "image"],
]);

/** What a pod, as JSON, needs; undefined for one that is not started again: finished, or on its way out. */
export function needsOfPod(pod: unknown): PodNeeds | undefined {
  const read = v.safeParse(podSchema, pod);
  if (!read.success) return undefined;
  const { metadata, spec, status } = read.output;
  const isFinished = status?.phase === "Succeeded" || status?.phase === "Failed";
  if (isFinished || metadata.deletionTimestamp !== undefined) return undefined;
  const containers = [...spec.initContainers, ...spec.containers];
  const objects = [...containers.flatMap(objectsOfContainer), ...spec.volumes.flatMap(objectsOfVolume)];
  const images = [...containers.map(imageOf), ...spec.volumes.flatMap(imagesOfVolume)];
  const tokens = spec.volumes.flatMap(({ projected }) =>
    (projected?.sources ?? []).flatMap(({ serviceAccountToken }) => serviceAccountToken?.audience ?? []),
  );
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    uid: metadata.uid,
    isStatic: metadata.annotations["kubernetes.io/config.mirror"] !== undefined,
    isHostNetwork: spec.hostNetwork,
    serviceAccount: spec.serviceAccountName,
    images: distinct(images),
    objects: distinct(objects).filter(({ name }) => name !== ""),
    audiences: [...new Set(tokens)],
    unsure: [
      ...spec.volumes.flatMap(doubtsOfVolume),
      ...(spec.runtimeClassName === "" ? [] : [`runtime class ${spec.runtimeClassName}`]),
      ...(spec.resourceClaims.length === 0 ? [] : ["devices by resource claim"]),
    ],
  };
}

function objectsOfContainer({ env, envFrom }: Container): NeededObject[] {
  return [
    ...env.map(({ valueFrom }) => [valueFrom?.configMapKeyRef, valueFrom?.secretKeyRef] as const),
    ...envFrom.map(({ configMapRef, secretRef }) => [configMapRef, secretRef] as const),
  ].flatMap(([configMap, secret]) => [...objectOf("configmaps", configMap), ...objectOf("secrets", secret)]);
}

function objectsOfVolume({ configMap, secret, projected, persistentVolumeClaim }: Volume): NeededObject[] {
  return [
    ...objectOf("configmaps", configMap),
    ...objectOf("secrets", secret && { name: secret.secretName, optional: secret.optional }),
    ...(projected?.sources ?? []).flatMap((source) => [
      ...objectOf("configmaps", source.configMap),
      ...objectOf("secrets", source.secret),
    ]),
    ...objectOf(
      "persistentvolumeclaims",
      persistentVolumeClaim && { name: persistentVolumeClaim.claimName, optional: false },
    ),
  ];
}

function objectOf(
  resource: NeededObject["resource"],
  found: { readonly name: string; readonly optional: boolean } | undefined,
): NeededObject[] {
  return found === undefined ? [] : [{ resource, name: found.name, isOptional: found.optional }];
}

function imageOf({ image, imagePullPolicy }: Container): NeededImage {
  return { image, isPulledAlways: imagePullPolicy === "Always" };
}

function imagesOfVolume({ image }: Volume): NeededImage[] {
  return image === undefined ? [] : [{ image: image.reference, isPulledAlways: image.pullPolicy === "Always" }];
}

function doubtsOfVolume(one: Volume): string[] {
  const kinds = Object.keys(one).filter((key) => !READ_VOLUMES.has(key) && !LOCAL_VOLUMES.has(key));
  return kinds.map((kind) => `volume ${one.name} (${kind})`);
}

function distinct<T>(rows: readonly T[]): T[] {
  return [...new Map(rows.map((row) => [JSON.stringify(row), row])).values()];
}
