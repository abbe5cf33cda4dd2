/**
 * Services and nodes as far as selectors look at them, in protobuf by hand.
 */

import { envelope, listMeta, message, text, varint } from "../../src/kube/protobuf-wire.ts";

/** An object's text, and what its message is made of. */
export function object(
  namespace: string,
  name: string,
  labels: Record<string, string>,
  spec: { readonly clusterIP?: string; readonly type?: string; readonly unschedulable?: boolean },
) {
  return { metadata: { namespace, name, uid: "u", resourceVersion: "1", labels }, spec };
}

/** ObjectMeta=1{name=1, namespace=3, uid=5, resourceVersion=6, labels=11}, spec=2{clusterIP=3, type=4; of a node: unschedulable=4}. */
export function messageOf({ metadata, spec }: ReturnType<typeof object>): Uint8Array {
  const labels = Object.entries(metadata.labels).map(([key, value]) => message(11, [text(1, key), text(2, value)]));
  const meta = [text(1, metadata.name), text(3, metadata.namespace), text(5, "u"), text(6, "1"), ...labels];
  const fields =
    spec.unschedulable === undefined
      ? [
          ...(spec.clusterIP === undefined ? [] : [text(3, spec.clusterIP)]),
          ...(spec.type === undefined ? [] : [text(4, spec.type)]),
        ]
      : [varint(4, spec.unschedulable ? 1 : 0)];
  return Buffer.concat([message(1, meta), message(2, fields)]);
}

/** A ServiceList of these. */
export function listMessage(items: readonly Uint8Array[]): Uint8Array {
  return envelope("v1", "ServiceList", [message(1, listMeta("1")), ...items.map((item) => message(2, [item]))]);
}
