/**
 * Delete, of one object and of a collection: when it only marks, and what it answers with.
 */

import { commit, isDryRun, remove } from "./commit.ts";
import type { Exchange } from "./exchange.ts";
import { parseJson } from "./exchange.ts";
import { notFound, preconditionFailed } from "./failure.ts";
import { PROTOBUF_TYPE } from "./negotiate.ts";
import { decode, openEnvelope } from "./protobuf.ts";
import { keyOf, rendererFor } from "./read.ts";
import { storageName, type Resource } from "./resources.ts";
import { child, isObject, message, textAt, type Json, type JsonObject } from "./schema.ts";
import { selector } from "./selectors.ts";
import type { World } from "./world.ts";

/** Kinds whose DELETE answers with the object; the others answer with a Status. */
const DELETE_RETURNS_OBJECT = new Set(["pods", "services", "serviceaccounts", "namespaces"]);
const DEFAULT_GRACE_SECONDS = 30;

/** DELETE of one object. */
export async function serveDelete(world: World, exchange: Exchange, resource: Resource): Promise<void> {
  const render = rendererFor(exchange, resource);
  const { namespace, name } = exchange.info;
  const options = await deleteOptions(exchange);
  const present = world.store.get(storageName(resource), keyOf(resource, namespace, name));
  if (!present) throw notFound(resource, name);
  checkPreconditions(resource, present, child(options, "preconditions"));
  const last =
    isDryRun(exchange) || (Array.isArray(options["dryRun"]) && options["dryRun"].length > 0)
      ? present
      : deleteObject(world, resource, present, options["gracePeriodSeconds"]);
  const isMarkedOnly =
    last !== present && textAt(last, "metadata.deletionTimestamp") !== "" && isThere(world, resource, last);
  if (DELETE_RETURNS_OBJECT.has(resource.resource) || isMarkedOnly)
    return exchange.send(200, render.contentType, render.single(last));
  const details: JsonObject = {
    name,
    ...(resource.group ? { group: resource.group } : {}),
    kind: resource.resource,
    uid: textAt(present, "metadata.uid"),
  };
  exchange.sendStatus(200, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", details });
}

function isThere({ store }: World, resource: Resource, object: JsonObject): boolean {
  const key = keyOf(resource, textAt(object, "metadata.namespace"), textAt(object, "metadata.name"));
  return store.get(storageName(resource), key) !== undefined;
}

/** DELETE of a collection; answers with what it held. */
export async function serveDeleteCollection(world: World, exchange: Exchange, resource: Resource): Promise<void> {
  const render = rendererFor(exchange, resource);
  const { query, info } = exchange;
  const options = await deleteOptions(exchange);
  const isSelected = selector(resource, query.get("labelSelector") ?? "", query.get("fieldSelector") ?? "");
  const doomed = world.store
    .list(storageName(resource))
    .map(([, object]) => object)
    .filter(
      (object) => (!info.namespace || textAt(object, "metadata.namespace") === info.namespace) && isSelected(object),
    );
  for (const object of doomed) deleteObject(world, resource, object, options["gracePeriodSeconds"]);
  exchange.send(200, render.contentType, render.list(doomed, { resourceVersion: String(world.store.revision) }));
}

/** Deletes as a DELETE does: a running pod or an object with finalizers is only marked. */
export function deleteObject(
  world: World,
  resource: Resource,
  present: JsonObject,
  graceSeconds: Json | undefined,
): JsonObject {
  const metadata = child(present, "metadata");
  const key = keyOf(resource, textAt(metadata, "namespace"), textAt(metadata, "name"));
  const finalizers = metadata["finalizers"];
  const isRunningPod =
    resource.resource === "pods" &&
    textAt(present, "spec.nodeName") !== "" &&
    !["Succeeded", "Failed"].includes(textAt(present, "status.phase"));
  const grace = isRunningPod
    ? Number(graceSeconds ?? child(present, "spec")["terminationGracePeriodSeconds"] ?? DEFAULT_GRACE_SECONDS)
    : 0;
  if (grace > 0 || (Array.isArray(finalizers) && finalizers.length > 0)) {
    if (metadata["deletionTimestamp"] !== undefined && Number(metadata["deletionGracePeriodSeconds"] ?? 0) <= grace)
      return present;
    const deletionTimestamp = new Date(Date.now() + grace * 1000).toISOString().replace(/\.\d+/, "");
    return commit(world, resource, key, {
      ...present,
      metadata: { ...metadata, deletionTimestamp, deletionGracePeriodSeconds: grace },
    });
  }
  if (resource.resource === "namespaces") emptyNamespace(world, textAt(metadata, "name"));
  return remove(world, resource, key, present);
}

function checkPreconditions(resource: Resource, present: JsonObject, preconditions: JsonObject): void {
  for (const [field, label] of [
    ["uid", "UID"],
    ["resourceVersion", "ResourceVersion"],
  ] as const) {
    const asked = textAt(preconditions, field);
    const held = textAt(present, `metadata.${field}`);
    if (asked && asked !== held)
      throw preconditionFailed(resource, textAt(present, "metadata.name"), label, asked, held);
  }
}

async function deleteOptions(exchange: Exchange): Promise<JsonObject> {
  const body = await exchange.body();
  const fromQuery: JsonObject = exchange.query.has("gracePeriodSeconds")
    ? { gracePeriodSeconds: Number(exchange.query.get("gracePeriodSeconds")) }
    : {};
  if (body.length === 0) return fromQuery;
  if (exchange.header("content-type").startsWith(PROTOBUF_TYPE))
    return decode(openEnvelope(body).raw, message("meta.DeleteOptions")!);
  const value = parseJson(body);
  return isObject(value) ? { ...fromQuery, ...value } : fromQuery;
}

/** What the namespace controller would do. */
function emptyNamespace(world: World, namespace: string): void {
  for (const resource of world.resources.all()) {
    if (!resource.isNamespaced) continue;
    for (const [key, object] of world.store.list(storageName(resource)))
      if (key.startsWith(`${namespace}/`)) remove(world, resource, key, object);
  }
}
