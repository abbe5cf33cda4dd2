/**
 * How objects come into the store and go: in the form that the server keeps them in.
 */

import { randomUUID } from "node:crypto";
import { keyOf } from "./read.ts";
import { apiVersionOf, storageName, type Resource } from "./resources.ts";
import { child, message, normalise, sortKeys, textAt, type JsonObject } from "./schema.ts";
import type { Exchange } from "./exchange.ts";
import type { World } from "./world.ts";

/** This second, as Kubernetes writes it. */
export const now = (): string => new Date().toISOString().replace(/\.\d+/, "");

/** Whether the request only asks what would be. */
export const isDryRun = (exchange: Exchange): boolean => exchange.query.has("dryRun");

/** Writes an object whatever it holds, for seeding and for tests: kind and apiVersion name the resource. */
export function putObject(world: World, given: JsonObject): JsonObject {
  const resource = world.resources.ofKind(textAt(given, "kind"), textAt(given, "apiVersion") || undefined);
  if (!resource) throw new TypeError(`Cannot put a "${textAt(given, "kind")}": no such resource is served`);
  const metadata = child(given, "metadata");
  const namespace = resource.isNamespaced ? textAt(metadata, "namespace") || "default" : "";
  const key = keyOf(resource, namespace, textAt(metadata, "name"));
  const held = child(world.store.get(storageName(resource), key), "metadata");
  const identity: JsonObject = {
    ...(resource.isNamespaced ? { namespace } : {}),
    uid: held["uid"] ?? randomUUID(),
    creationTimestamp: held["creationTimestamp"] ?? now(),
    ...metadata,
  };
  return commit(world, resource, key, { ...given, metadata: identity });
}

/** Writes it; a definition defines its resource. @returns it as stored. */
export function commit(world: World, resource: Resource, key: string, object: JsonObject): JsonObject {
  const written = world.store.put(storageName(resource), key, (revision) => stored(resource, object, revision));
  if (resource.resource === "customresourcedefinitions") world.resources.define(written);
  return written;
}

/** Takes it away, with its last form. */
export function remove(world: World, resource: Resource, key: string, object: JsonObject): JsonObject {
  if (resource.resource === "customresourcedefinitions") world.resources.undefine(object);
  return world.store.delete(storageName(resource), key, (revision) => stored(resource, object, revision)) ?? object;
}

/** The form objects are kept in: Go's key order, without kind and apiVersion unless custom. */
export function stored(resource: Resource, object: JsonObject, revision: number): JsonObject {
  const { kind: _kind, apiVersion: _apiVersion, ...rest } = object;
  const metadata: JsonObject = { ...child(object, "metadata"), resourceVersion: String(revision) };
  if (!resource.isCustom && resource.message) return normalise({ ...rest, metadata }, resource.message) as JsonObject;
  if (!resource.isCustom)
    return { ...(sortKeys(rest) as JsonObject), metadata: normalise(metadata, message("meta.ObjectMeta")) };
  return sortKeys({
    ...rest,
    metadata: normalise(metadata, message("meta.ObjectMeta")),
    apiVersion: apiVersionOf(resource),
    kind: resource.kind,
  }) as JsonObject;
}
