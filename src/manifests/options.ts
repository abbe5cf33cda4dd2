/**
 * What can be chosen when manifests are rendered.
 *
 * What the ConfigMap can say while everything runs stands there and not here;
 * here is only what other objects are made of.
 */

import { GUARD_NAMESPACE } from "../guard/names.ts";

/** The choices; `DEFAULT_OPTIONS` for each. */
export interface ManifestOptions {
  readonly namespace: string;
  /** The guard's container image. */
  readonly image: string;
  readonly replicas: number;
  /** How long a silent node is held: Go duration, "0" for ever. */
  readonly bound: string;
  /** More users who are judged like the node controller. */
  readonly controllers: readonly string[];
  /** The guard approves the certificate requests of kubelets. */
  readonly approvesCsrs: boolean;
  /** cert-manager makes the serving certificate instead of the guard itself. */
  readonly usesCertManager: boolean;
  /** Nothing but the policies and their parameters. */
  readonly isPoliciesOnly: boolean;
}

/** The first Kubernetes that has everything that is rendered: ValidatingAdmissionPolicy and matchConditions in v1. */
export const MINIMUM_KUBERNETES = "1.30";

/** The defaults. */
export function defaultOptions(version: string): ManifestOptions {
  return {
    namespace: GUARD_NAMESPACE,
    image: `holdfast.dev/holdfast:${version}`,
    replicas: 2,
    bound: "0",
    controllers: [],
    approvesCsrs: false,
    usesCertManager: false,
    isPoliciesOnly: false,
  };
}
