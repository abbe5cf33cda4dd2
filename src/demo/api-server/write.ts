/**
 * Create, update and patch, with the rules that clients trip over: who may set
 * a resourceVersion, what a status write may touch.
 */

import { randomBytes, randomUUID } from "node:crypto";
import { commit, isDryRun, now, remove, stored } from "./commit.ts";
import type { Exchange } from "./exchange.ts";
import { parseJson } from "./exchange.ts";
import {
  alreadyExists,
  badRequest,
  conflict,
  Failure,
  invalidObject,
  notFound,
  statusObject,
  unsupportedMediaType,
} from "./failure.ts";
import { PROTOBUF_TYPE } from "./negotiate.ts";
import { judge } from "./signer.ts";
import { applyPatch, isApply } from "./patch.ts";
import { decode, openEnvelope } from "./protobuf.ts";
import { keyOf, rendererFor } from "./read.ts";
import { apiVersionOf, storageName, type Resource } from "./resources.ts";
import { child, isObject, textAt, type Json, type JsonObject } from "./schema.ts";
import type { World } from "./world.ts";

/** Kinds that a PUT may create, and those that a PUT may overwrite blindly only with a resourceVersion. */
const PUT_MAY_CREATE = new Set(["leases", "endpoints", "events"]);
const NEEDS_REVISION = new Set(["leases"]);
/** Kinds whose status a client may set when it creates the object. */
const CREATED_WITH_STATUS = new Set(["nodes"]);
const BODY_TYPES = ["", "application/json", "application/yaml"];

/** The request's object, from JSON or protobuf. @throws {Failure} 400, 415. */
export async function readObject(exchange: Exchange, resource: Resource): Promise<JsonObject> {
  const body = await exchange.body();
  const contentType = exchange.header("content-type").split(";")[0]!.trim();
  if (contentType !== PROTOBUF_TYPE) {
    if (!BODY_TYPES.includes(contentType))
      throw unsupportedMediaType(
        `the body of the request was in an unknown format - accepted media types include: ${BODY_TYPES.filter(Boolean).join(", ")}, ${PROTOBUF_TYPE}`,
      );
    const value = parseJson(body);
    if (!isObject(value)) throw badRequest("the object provided is unrecognized (must be of type Object)");
    return value;
  }
  const { apiVersion, kind, raw } = openEnvelope(body);
  if (!resource.message) throw badRequest(`no protobuf for ${resource.kind}`);
  return { apiVersion, kind, ...decode(raw, resource.message) };
}

/** POST of a collection. */
export async function serveCreate(world: World, exchange: Exchange, resource: Resource): Promise<void> {
  const render = rendererFor(exchange, resource);
  const given = await readObject(exchange, resource);
  checkType(resource, given);
  const created = create(world, resource, exchange.info.namespace, given, isDryRun(exchange));
  if (resource.resource === "certificatesigningrequests" && !isDryRun(exchange)) judge(world, created);
  exchange.send(201, render.contentType, render.single(created));
}

/** Creates an object as a POST does. @throws {Failure} */
export function create(
  world: World,
  resource: Resource,
  namespace: string,
  given: JsonObject,
  dryRun = false,
): JsonObject {
  const metadata = child(given, "metadata");
  const name =
    textAt(metadata, "name") ||
    (textAt(metadata, "generateName") &&
      `${textAt(metadata, "generateName")}${randomBytes(4).toString("hex").slice(0, 5)}`);
  if (!name)
    throw invalidObject(
      resource.group,
      resource.kind,
      "",
      "metadata.name",
      "FieldValueRequired",
      "Required value: name or generateName is required",
    );
  if (textAt(metadata, "resourceVersion"))
    throw new Failure(statusObject(500, "", "resourceVersion should not be set on objects to be created"));
  requireNamespace(world, resource, namespace, textAt(metadata, "namespace"));
  const key = keyOf(resource, namespace, name);
  if (world.store.get(storageName(resource), key)) throw alreadyExists(resource, name);
  const identity: JsonObject = {
    ...metadata,
    name,
    ...(resource.isNamespaced ? { namespace } : {}),
    uid: randomUUID(),
    creationTimestamp: now(),
    ...(hasGeneration(resource) ? { generation: 1 } : {}),
    ...(resource.resource === "namespaces"
      ? { labels: { ...child(metadata, "labels"), "kubernetes.io/metadata.name": name } }
      : {}),
  };
  const drafted = { ...defaulted(resource, given), metadata: identity };
  if (dryRun) return stored(resource, drafted, world.store.revision);
  return commit(world, resource, key, drafted);
}

/** PUT of an object or its status. */
export async function serveUpdate(world: World, exchange: Exchange, resource: Resource): Promise<void> {
  const render = rendererFor(exchange, resource);
  const { namespace, name, subresource } = exchange.info;
  const given = await readObject(exchange, resource);
  checkType(resource, given);
  if (textAt(given, "metadata.name") !== name)
    throw badRequest(
      `the name of the object (${textAt(given, "metadata.name")}) does not match the name on the URL (${name})`,
    );
  const present = world.store.get(storageName(resource), keyOf(resource, namespace, name));
  if (!present && PUT_MAY_CREATE.has(resource.resource) && !subresource) {
    const { resourceVersion: _, ...metadata } = child(given, "metadata");
    return exchange.send(
      201,
      render.contentType,
      render.single(create(world, resource, namespace, { ...given, metadata })),
    );
  }
  if (!present) throw notFound(resource, name);
  if (!textAt(given, "metadata.resourceVersion") && (resource.isCustom || NEEDS_REVISION.has(resource.resource)))
    throw invalidObject(
      resource.group,
      resource.group === "" ? resource.kind : resource.resource,
      name,
      "metadata.resourceVersion",
      "FieldValueInvalid",
      "Invalid value: 0: must be specified for an update",
    );
  const updated = replace(world, resource, present, given, subresource, isDryRun(exchange));
  exchange.send(200, render.contentType, render.single(updated));
}

/** PATCH of an object or its status. */
export async function servePatch(world: World, exchange: Exchange, resource: Resource): Promise<void> {
  const render = rendererFor(exchange, resource);
  const { namespace, name, subresource } = exchange.info;
  const contentType = exchange.header("content-type");
  const body = await exchange.body();
  const patch = isApply(contentType) ? (Bun.YAML.parse(body.toString()) as Json) : parseJson(body);
  const present = world.store.get(storageName(resource), keyOf(resource, namespace, name));
  if (!present && isApply(contentType) && isObject(patch))
    return exchange.send(201, render.contentType, render.single(create(world, resource, namespace, patch)));
  if (!present) throw notFound(resource, name);
  const patched = applyPatch(present, contentType, patch, resource.isCustom ? undefined : resource.message);
  const patchMetadata = isObject(patch) ? child(patch, "metadata") : {};
  // a patch without a resourceVersion wins over whatever was written meanwhile
  const metadata = {
    ...child(patched, "metadata"),
    resourceVersion: patchMetadata["resourceVersion"] ?? child(present, "metadata")["resourceVersion"]!,
  };
  const updated = replace(world, resource, present, { ...patched, metadata }, subresource, isDryRun(exchange));
  exchange.send(200, render.contentType, render.single(updated));
}

/** Puts a new state in place of the present one. @throws {Failure} 409 when it was made from an older one. */
export function replace(
  world: World,
  resource: Resource,
  present: JsonObject,
  given: JsonObject,
  subresource: string,
  dryRun = false,
): JsonObject {
  const held = child(present, "metadata");
  const asked = child(given, "metadata");
  const name = textAt(held, "name");
  if (textAt(asked, "uid") && textAt(asked, "uid") !== textAt(held, "uid"))
    throw conflict(
      resource,
      name,
      `Precondition failed: UID in precondition: ${textAt(asked, "uid")}, UID in object meta: ${textAt(held, "uid")}`,
    );
  if (textAt(asked, "resourceVersion") && textAt(asked, "resourceVersion") !== textAt(held, "resourceVersion"))
    throw conflict(resource, name);
  const { deletionTimestamp, deletionGracePeriodSeconds } = held;
  const fixed: JsonObject = {
    name,
    ...(held["namespace"] === undefined ? {} : { namespace: held["namespace"] }),
    uid: held["uid"]!,
    creationTimestamp: held["creationTimestamp"]!,
    ...(held["generation"] === undefined ? {} : { generation: held["generation"] }),
    ...(deletionTimestamp === undefined
      ? {}
      : { deletionTimestamp, deletionGracePeriodSeconds: deletionGracePeriodSeconds ?? 0 }),
  };
  const metadata = subresource === "status" && resource.isCustom ? { ...held } : { ...asked, ...fixed };
  const next =
    subresource === "status"
      ? { ...present, status: given["status"] ?? {}, metadata }
      : withStatusOf(resource, present, { ...given, metadata });
  if (hasGeneration(resource) && !Bun.deepEquals(next["spec"], present["spec"]))
    metadata["generation"] = Number(held["generation"] ?? 0) + 1;
  const key = keyOf(resource, textAt(held, "namespace"), name);
  const candidate = stored(resource, next, Number(held["resourceVersion"]));
  if (JSON.stringify(candidate) === JSON.stringify(present)) return present;
  if (dryRun) return candidate;
  const finalizers = child(candidate, "metadata")["finalizers"];
  if (
    deletionTimestamp !== undefined &&
    !(Array.isArray(finalizers) && finalizers.length > 0) &&
    Number(deletionGracePeriodSeconds ?? 0) === 0
  )
    return remove(world, resource, key, candidate);
  return commit(world, resource, key, next);
}

function defaulted(resource: Resource, given: JsonObject): JsonObject {
  if (resource.resource === "pods") return { ...given, status: { phase: "Pending", qosClass: "BestEffort" } };
  if (resource.resource === "namespaces")
    return { ...given, spec: { finalizers: ["kubernetes"] }, status: { phase: "Active" } };
  if (resource.resource === "customresourcedefinitions") return { ...given, status: acceptedDefinition(given) };
  if (resource.resource === "secrets")
    return {
      type: "Opaque",
      ...given,
      data: { ...child(given, "data"), ...encoded(child(given, "stringData")) },
      stringData: null,
    };
  if (!resource.hasStatus || CREATED_WITH_STATUS.has(resource.resource)) return given;
  const { status: _, ...rest } = given;
  return resource.isCustom ? rest : { ...rest, status: {} };
}

const encoded = (texts: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(String(text)).toString("base64")]));

function acceptedDefinition(definition: JsonObject): JsonObject {
  const spec = child(definition, "spec");
  const condition = (type: string, reason: string) => ({
    type,
    status: "True",
    lastTransitionTime: now(),
    reason,
    message: "",
  });
  return {
    conditions: [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
    acceptedNames: spec["names"] ?? {},
    storedVersions: [],
  };
}

/** A write of the object itself leaves the status as it is. */
function withStatusOf(resource: Resource, present: JsonObject, given: JsonObject): JsonObject {
  if (!resource.hasStatus) return given;
  const { status: _, ...rest } = given;
  return present["status"] === undefined ? rest : { ...rest, status: present["status"] };
}

const hasGeneration = ({ isCustom, resource }: Resource) =>
  isCustom || ["deployments", "pods", "endpointslices", "resourceslices"].includes(resource);

function checkType(resource: Resource, given: JsonObject): void {
  const kind = textAt(given, "kind");
  const apiVersion = textAt(given, "apiVersion");
  if (resource.isCustom && kind && kind !== resource.kind && apiVersion === apiVersionOf(resource))
    throw invalidObject(
      resource.group,
      kind,
      textAt(given, "metadata.name"),
      "kind",
      "FieldValueInvalid",
      `Invalid value: "${kind}": must be ${resource.kind}`,
    );
  if ((kind && kind !== resource.kind) || (apiVersion && apiVersion !== apiVersionOf(resource)))
    throw badRequest(
      `${kind} in version "${apiVersion}" cannot be handled as a ${resource.kind}: the API version in the data (${apiVersion}) does not match the expected API version (${apiVersionOf(resource)})`,
    );
}

function requireNamespace(world: World, resource: Resource, namespace: string, named: string): void {
  if (!resource.isNamespaced) return;
  if (named && named !== namespace)
    throw badRequest("the namespace of the provided object does not match the namespace sent on the request");
  if (!world.store.get("namespaces", namespace)) throw notFound({ group: "", resource: "namespaces" }, namespace);
}
