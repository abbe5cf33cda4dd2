/**
 * Which lists of a Pod and of a Node merge item by item, and by which key.
 *
 * Every list that is not named here is atomic: a patch replaces it whole. So
 * are container statuses, tolerations, taints and images. Maps need no entry,
 * except on the way to such a list. A field unknown to this release of the
 * table, written by a newer API server, therefore merges as a map or is
 * replaced as a list, where Kubernetes of this age would refuse the patch.
 *
 * Source: the tags patchStrategy and patchMergeKey of k8s.io/api/core/v1 and
 * of meta/v1, 0.37. The retainKeys strategy needs no entry: the patch itself
 * brings the directive.
 */

/** What is known of the fields of one object; a field that is missing has no rule. */
export interface FieldRules {
  readonly [field: string]: FieldRule;
}

/** The rule of one field. */
export interface FieldRule {
  /** A list that merges: the field that tells its items apart, or "" when the items are scalars. */
  readonly mergeKey?: string;
  /** The rules within: of the object, or of each item of the list. */
  readonly fields?: FieldRules;
}

const METADATA: FieldRule = {
  fields: { ownerReferences: { mergeKey: "uid" }, finalizers: { mergeKey: "" } },
};

const CONTAINERS: FieldRule = {
  mergeKey: "name",
  fields: {
    ports: { mergeKey: "containerPort" },
    env: { mergeKey: "name" },
    volumeMounts: { mergeKey: "mountPath" },
    volumeDevices: { mergeKey: "devicePath" },
  },
};

const POD: FieldRules = {
  metadata: METADATA,
  spec: {
    fields: {
      volumes: {
        mergeKey: "name",
        fields: { ephemeral: { fields: { volumeClaimTemplate: { fields: { metadata: METADATA } } } } },
      },
      initContainers: CONTAINERS,
      containers: CONTAINERS,
      ephemeralContainers: CONTAINERS,
      imagePullSecrets: { mergeKey: "name" },
      hostAliases: { mergeKey: "ip" },
      topologySpreadConstraints: { mergeKey: "topologyKey" },
      schedulingGates: { mergeKey: "name" },
      resourceClaims: { mergeKey: "name" },
      evictionResponders: { mergeKey: "name" },
    },
  },
  status: {
    fields: {
      conditions: { mergeKey: "type" },
      hostIPs: { mergeKey: "ip" },
      podIPs: { mergeKey: "ip" },
      resourceClaimStatuses: { mergeKey: "name" },
      nodeAllocatableResourceClaimStatuses: {
        mergeKey: "resourceClaimName",
        fields: { mapping: { mergeKey: "name" }, overhead: { mergeKey: "name" } },
      },
    },
  },
};

const NODE: FieldRules = {
  metadata: METADATA,
  spec: { fields: { podCIDRs: { mergeKey: "" } } },
  status: { fields: { conditions: { mergeKey: "type" }, addresses: { mergeKey: "type" } } },
};

/** The rules of a whole object, by its kind. */
export const MERGE_KEYS: { readonly Pod: FieldRules; readonly Node: FieldRules } = { Pod: POD, Node: NODE };

const NO_RULE: FieldRule = {};

/** The rule of one field; an empty one where none is known. Any text may be asked for, also `__proto__`. */
export function ruleOf(rules: FieldRules | undefined, field: string): FieldRule {
  return rules !== undefined && Object.hasOwn(rules, field) ? (rules[field] ?? NO_RULE) : NO_RULE;
}
