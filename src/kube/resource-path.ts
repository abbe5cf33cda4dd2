/**
 * From a resource to the path the API server knows it by.
 */

/** What names a collection: group "" is core; namespace "" is cluster-wide. */
export interface CollectionName {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  readonly namespace: string;
}

/** The collection's path, for example /apis/apps/v1/namespaces/shop/deployments. */
export function collectionPath({ group, version, resource, namespace }: CollectionName): string {
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  return namespace === "" ? `${root}/${resource}` : `${root}/namespaces/${encodeURIComponent(namespace)}/${resource}`;
}

/**
 * The text that orders objects as etcd orders them: "namespace/name", or
 * "name" for cluster-scoped ones.
 */
export function objectKey(namespace: string, name: string): string {
  return namespace === "" ? name : `${namespace}/${name}`;
}
