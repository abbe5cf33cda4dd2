/**
 * All objects of the guard, in the order in which they are to be applied.
 *
 * The parameters come before the policies that bind to them, and the webhook
 * configurations last, when there is something to ask.
 */

import { access } from "./access.ts";
import type { KubernetesObject } from "./object.ts";
import type { ManifestOptions } from "./options.ts";
import { ownWritesPolicy } from "./own-writes.ts";
import { nodePolicies } from "./policies.ts";
import { webhookConfigurations } from "./webhooks.ts";
import { namespaceObject, parametersObject, workload } from "./workload.ts";

/** Which file of a folder an object goes into. */
export const FILES = ["parameters", "policies", "access", "guard", "webhooks"] as const;

/** The objects by file. */
export function manifests(options: ManifestOptions): Readonly<Record<(typeof FILES)[number], KubernetesObject[]>> {
  const isWhole = !options.isPoliciesOnly;
  return {
    parameters: [namespaceObject(options), parametersObject(options)],
    policies: nodePolicies(options.namespace),
    access: isWhole ? [...access(options), ...ownWritesPolicy(options.namespace)] : [],
    guard: isWhole ? workload(options) : [],
    webhooks: isWhole ? webhookConfigurations(options) : [],
  };
}
