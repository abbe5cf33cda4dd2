/**
 * What the gateway's objects are called: by them it keeps who holds which node,
 * and the guard knows whose place an address is. All stand in one namespace.
 */

import { createHash } from "node:crypto";

/** Labels of a node's Service and EndpointSlice. */
export const PLACE_LABELS = {
  "app.kubernetes.io/name": "holdfast",
  "app.kubernetes.io/component": "tunnel-place",
} as const;

/** Their annotation: which node's they are. A name may be longer than a label's value. */
export const NODE_ANNOTATION = "holdfast.dev/tunnel-node";

/** The ConfigMap that says which port is which node's: `"20017": "edge-1"`. */
export const PORTS_NAME = "holdfast-gateway-ports";

/** Annotation of that ConfigMap: the addresses at which these ports are, separated by commas. */
export const ADDRESSES_ANNOTATION = "holdfast.dev/tunnel-addresses";

/** The name of a node's Service and EndpointSlice: a DNS label, whatever the node is called. */
export function placeNameOf(nodeName: string): string {
  return `tunnel-${createHash("sha256").update(nodeName).digest("hex").slice(0, 20)}`;
}
