/**
 * From a request to the function that answers it: rights, resources, verbs, subresources.
 */

import { isPublic } from "./discovery.ts";
import type { Exchange } from "./exchange.ts";
import { badRequest, Failure, forbidden, methodNotAllowed, noSuchResource, notFound, statusObject } from "./failure.ts";
import type { ScriptedStatus } from "./faults.ts";
import { keyOf, serveGet, serveList } from "./read.ts";
import { storageName, type Resource } from "./resources.ts";
import { serveReview, serveTokenRequest, type Authorize, type JudgeToken } from "./reviews.ts";
import { serveLog } from "./streams.ts";
import { serveWatch } from "./watch.ts";
import type { World } from "./world.ts";
import { deleteObject, serveDelete, serveDeleteCollection } from "./delete.ts";
import { serveCreate, servePatch, serveUpdate } from "./write.ts";

/** Who judges rights and tokens. */
export interface Judges {
  readonly authorize: Authorize;
  readonly judgeToken: JudgeToken;
}

/** Judges by the stand-in's RBAC. @throws {Failure} 403. */
export function requireAllowed({ user, info }: Exchange, authorize: Authorize): void {
  if (isPublic(info.path) || authorize(user, info)) return;
  if (!info.resource)
    throw new Failure(
      statusObject(403, "Forbidden", `forbidden: User "${user.name}" cannot ${info.verb} path "${info.path}"`, {}),
    );
  const { group, resource, subresource, namespace, name, verb } = info;
  const what = subresource ? `${resource}/${subresource}` : resource;
  const where = namespace ? `in the namespace "${namespace}"` : "at the cluster scope";
  throw forbidden(
    { group, resource },
    name,
    `User "${user.name}" cannot ${verb} resource "${what}" in API group "${group}" ${where}`,
  );
}

/** Answers a request for a resource, its collection, or one of its subresources. @throws {Failure} */
export async function serveResource(world: World, exchange: Exchange, judges: Judges): Promise<void> {
  const { info, method } = exchange;
  const resource = world.resources.find(info.group, info.version, info.resource);
  if (!resource && !world.resources.hasGroup(info.group)) return exchange.sendText(404, "404 page not found\n");
  const isUnscopedName = resource?.isNamespaced && !info.namespace && info.path.split("/").at(-1) !== info.resource;
  if (!resource || isUnscopedName) throw noSuchResource();
  const isCollection = !info.name || !info.path.endsWith(`/${info.name}`);
  if (
    (method === "POST" && resource.isNamespaced && !info.namespace) ||
    (isCollection && !info.subresource && ["PUT", "PATCH"].includes(method))
  )
    throw methodNotAllowed();
  if (resource.isReview) {
    if (method !== "POST") throw methodNotAllowed();
    return serveReview(exchange, resource, judges.authorize, judges.judgeToken);
  }
  if (info.subresource && info.subresource !== "status") return serveSubresource(world, exchange, resource);
  if (info.subresource === "status" && !resource.hasStatus) throw noSuchResource();
  switch (info.verb) {
    case "get":
      return serveGet(world, exchange, resource);
    case "list":
      return serveList(world, exchange, resource);
    case "watch":
      return serveWatch(world, exchange, resource);
    case "create":
      if (exchange.info.name) throw methodNotAllowed();
      return serveCreate(world, exchange, resource);
    case "update":
      return serveUpdate(world, exchange, resource);
    case "patch":
      return servePatch(world, exchange, resource);
    case "delete":
      return serveDelete(world, exchange, resource);
    case "deletecollection":
      return serveDeleteCollection(world, exchange, resource);
    default:
      throw methodNotAllowed();
  }
}

async function serveSubresource(world: World, exchange: Exchange, resource: Resource): Promise<void> {
  const { subresource, namespace, name } = exchange.info;
  if (!resource.subresources.includes(subresource)) throw noSuchResource();
  if (subresource === "log") return serveLog(world, exchange);
  if (subresource === "token" && exchange.method === "POST") return serveTokenRequest(world, exchange);
  if (subresource === "eviction" && exchange.method === "POST") {
    const pod = world.store.get(storageName(resource), keyOf(resource, namespace, name));
    if (!pod) throw notFound(resource, name);
    deleteObject(world, resource, pod, undefined);
    return exchange.sendJson(201, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", code: 201 });
  }
  if (["exec", "attach", "portforward"].includes(subresource)) throw badRequest("Upgrade request required");
  throw methodNotAllowed();
}

/** Answers with a Status that a test has ordered. */
export function sendScripted(exchange: Exchange, { code, reason, message, retryAfterSeconds }: ScriptedStatus): void {
  const known: Record<number, [string, string]> = {
    401: ["Unauthorized", "Unauthorized"],
    429: ["TooManyRequests", "Too many requests, please try again later."],
    500: ["InternalError", "Internal error occurred: scripted"],
    503: ["ServiceUnavailable", "the server is currently unable to handle the request"],
    504: ["Timeout", "Timeout: request did not complete within the allotted timeout"],
  };
  const [knownReason, knownMessage] = known[code] ?? ["", "scripted"];
  const details = retryAfterSeconds === undefined ? undefined : { retryAfterSeconds };
  const headers: Record<string, string> =
    retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  exchange.sendStatus(code, statusObject(code, reason ?? knownReason, message ?? knownMessage, details), headers);
}
