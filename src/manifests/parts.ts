/**
 * Names, ports and labels that several manifests share.
 */

/** Deployment, service account, roles, Lease and webhook configurations are all called so. */
export const GUARD_NAME = "holdfast-guard";

/** The Secret with the serving certificate. */
export const CERTIFICATE_SECRET = "holdfast-guard-tls";

/** The webhook, TLS. */
export const WEBHOOK_PORT = 10443;

/** /livez, /readyz and /metrics, plain HTTP. */
export const HEALTH_PORT = 10444;

/** On every object of ours. */
export const APP_LABELS = { "app.kubernetes.io/name": "holdfast", "app.kubernetes.io/component": "guard" } as const;
