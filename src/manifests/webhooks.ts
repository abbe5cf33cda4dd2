/**
 * The webhook configurations, from the webhook's own list of rules.
 *
 * No caBundle stands in them: the guard writes it, or cert-manager, and
 * applying the manifests again leaves it alone.
 */

import type {
  V1MutatingWebhook,
  V1MutatingWebhookConfiguration,
  V1ValidatingWebhook,
  V1ValidatingWebhookConfiguration,
} from "@kubernetes/client-node";
import { WEBHOOK_COMMON, webhookNamespaceSelector, webhookRules, type WebhookRule } from "../guard/webhook-rules.ts";
import { sent } from "../kube/wire.ts";
import type { KubernetesObject } from "./object.ts";
import type { ManifestOptions } from "./options.ts";
import { APP_LABELS, CERTIFICATE_SECRET, GUARD_NAME } from "./parts.ts";

const CERT_MANAGER_INJECT = "cert-manager.io/inject-ca-from";
const ADMISSION = "admissionregistration.k8s.io/v1";

/** Both configurations. */
export function webhookConfigurations(options: ManifestOptions): KubernetesObject[] {
  const rules = webhookRules(options.controllers);
  const inject = { [CERT_MANAGER_INJECT]: `${options.namespace}/${CERTIFICATE_SECRET}` };
  const metadata = {
    name: GUARD_NAME,
    labels: APP_LABELS,
    ...(options.usesCertManager ? { annotations: inject } : {}),
  };
  return [
    sent<V1ValidatingWebhookConfiguration>()({
      apiVersion: ADMISSION,
      kind: "ValidatingWebhookConfiguration",
      metadata,
      webhooks: rules.filter(({ kind }) => kind === "validating").map((rule) => entry(rule, options.namespace)),
    }),
    sent<V1MutatingWebhookConfiguration>()({
      apiVersion: ADMISSION,
      kind: "MutatingWebhookConfiguration",
      metadata,
      webhooks: rules
        .filter(({ kind }) => kind === "mutating")
        .map((rule) =>
          sent<V1MutatingWebhook>()({ ...entry(rule, options.namespace), reinvocationPolicy: "IfNeeded" }),
        ),
    }),
  ];
}

function entry(rule: WebhookRule, namespace: string) {
  const { name, path, operations, apiGroups, apiVersions, resources, matchConditions, failurePolicy } = rule;
  return sent<V1ValidatingWebhook>()({
    name,
    ...WEBHOOK_COMMON,
    failurePolicy,
    clientConfig: { service: { name: GUARD_NAME, namespace, path, port: 443 } },
    namespaceSelector: webhookNamespaceSelector(namespace),
    rules: [{ operations, apiGroups, apiVersions, resources, scope: "Namespaced" }],
    matchConditions,
  });
}
