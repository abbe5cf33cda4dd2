/**
 * The webhook configurations, from the webhook's own list of rules.
 *
 * No caBundle stands in them: the guard writes it, or cert-manager, and
 * applying the manifests again leaves it alone.
 */

import { WEBHOOK_COMMON, webhookNamespaceSelector, webhookRules, type WebhookRule } from "../guard/webhook-rules.ts";
import type { KubernetesObject } from "./object.ts";
import type { ManifestOptions } from "./options.ts";
import { APP_LABELS, CERTIFICATE_SECRET, GUARD_NAME } from "./parts.ts";

const CERT_MANAGER_INJECT = "cert-manager.io/inject-ca-from";
const KINDS = { validating: "ValidatingWebhookConfiguration", mutating: "MutatingWebhookConfiguration" } as const;

/** Both configurations. */
export function webhookConfigurations(options: ManifestOptions): KubernetesObject[] {
  const rules = webhookRules(options.controllers);
  return (["validating", "mutating"] as const).map((kind) => ({
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: KINDS[kind],
    metadata: {
      name: GUARD_NAME,
      labels: APP_LABELS,
      ...(options.usesCertManager
        ? { annotations: { [CERT_MANAGER_INJECT]: `${options.namespace}/${CERTIFICATE_SECRET}` } }
        : {}),
    },
    webhooks: rules.filter((rule) => rule.kind === kind).map((rule) => entry(rule, options.namespace)),
  }));
}

function entry(rule: WebhookRule, namespace: string) {
  const { name, path, operations, apiGroups, apiVersions, resources, matchConditions, failurePolicy } = rule;
  return {
    name,
    ...WEBHOOK_COMMON,
    failurePolicy,
    clientConfig: { service: { name: GUARD_NAME, namespace, path, port: 443 } },
    namespaceSelector: webhookNamespaceSelector(namespace),
    rules: [{ operations, apiGroups, apiVersions, resources, scope: "Namespaced" }],
    matchConditions,
    ...(rule.kind === "mutating" ? { reinvocationPolicy: "IfNeeded" } : {}),
  };
}
