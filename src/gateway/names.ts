/**
 * What the gateway's objects are called. All of them stand in its namespace.
 */

/** Deployment, service account and roles. */
export const GATEWAY_NAME = "holdfast-gateway";

/** Annotation of an EndpointSlice: which replica holds the tunnel. */
export const HOLDER_ANNOTATION = "holdfast.dev/tunnel-holder";

/** Annotation of an EndpointSlice: where that replica takes connections that came to another one. */
export const HANDOVER_ANNOTATION = "holdfast.dev/tunnel-handover";

/** Kubelet's own port, which a place in mode `service` keeps. */
export const KUBELET_PORT = 10_250;

/** Who applies: the API server keeps it beside each field. */
export const FIELD_MANAGER = "holdfast-gateway";
