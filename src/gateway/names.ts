/**
 * What the gateway's objects are called. All of them stand in its namespace.
 */

import { createHash } from "node:crypto";

/** Deployment, service account and roles. */
export const GATEWAY_NAME = "holdfast-gateway";

/** The ConfigMap that says which port is which node's: `"20017": "edge-1"`. */
export const PORTS_NAME = "holdfast-gateway-ports";

/** Labels of a node's Service and EndpointSlice. */
export const PLACE_LABELS = {
  "app.kubernetes.io/name": "holdfast",
  "app.kubernetes.io/component": "tunnel-place",
} as const;

/** Their annotation: which node's they are. A name may be longer than a label's value. */
export const NODE_ANNOTATION = "holdfast.dev/tunnel-node";

/** Annotation of an EndpointSlice: which replica holds the tunnel. */
export const HOLDER_ANNOTATION = "holdfast.dev/tunnel-holder";

/** Annotation of an EndpointSlice: where that replica takes connections that came to another one. */
export const HANDOVER_ANNOTATION = "holdfast.dev/tunnel-handover";

/** Annotation of the ports' ConfigMap: the addresses at which nodes are dialled in mode `port`, by comma. */
export const ADDRESSES_ANNOTATION = "holdfast.dev/tunnel-addresses";

/** Kubelet's own port, which a place in mode `service` keeps. */
export const KUBELET_PORT = 10_250;

/** Who applies: the API server keeps it beside each field. */
export const FIELD_MANAGER = "holdfast-gateway";

/** The name of a node's Service and EndpointSlice: a DNS label, whatever the node is called. */
export function placeNameOf(nodeName: string): string {
  return `tunnel-${createHash("sha256").update(nodeName).digest("hex").slice(0, 20)}`;
}
