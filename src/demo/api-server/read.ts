/**
 * GET and LIST: which revision is asked for, which page of it, in what form.
 */

import { objectKey } from "../../kube/resource-path.ts";
import { badRequest, expired, Failure, invalidOptions, notFound, statusObject, tooLarge } from "./failure.ts";
import { negotiate } from "./negotiate.ts";
import { renderer, type IncludeObject, type Renderer } from "./render.ts";
import { storageName, type Resource } from "./resources.ts";
import { fieldPairs, selector } from "./selectors.ts";
import type { Snapshot } from "./store.ts";
import type { Exchange } from "./exchange.ts";
import type { JsonObject } from "./schema.ts";
import type { World } from "./world.ts";

/** Where `continue` takes up: the list's revision and the first key not yet seen. */
interface ContinueToken {
  readonly v: "meta.k8s.io/v1";
  readonly rv: number;
  readonly start: string;
}

/** Answers a GET of one object. */
export function serveGet(world: World, exchange: Exchange, resource: Resource): void {
  const { namespace, name } = exchange.info;
  const render = rendererFor(exchange, resource);
  requireReached(world, exchange.query.get("resourceVersion"));
  const object = world.store.get(storageName(resource), keyOf(resource, namespace, name));
  if (!object) throw notFound(resource, name);
  exchange.send(200, render.contentType, render.single(object));
}

/** Answers a LIST. */
export function serveList(world: World, exchange: Exchange, resource: Resource): void {
  const { query, info } = exchange;
  validateListOptions(query);
  const render = rendererFor(exchange, resource);
  const isSelected = selector(resource, query.get("labelSelector") ?? "", query.get("fieldSelector") ?? "");
  const limit = integerParameter(query, "limit");
  const token = decodeContinue(query.get("continue"));
  const { revision, snapshot, ignoresLimit } = token
    ? continued(world, resource, token)
    : listedAt(world, exchange, resource, limit);
  const prefix = info.namespace === "" || !resource.isNamespaced ? "" : `${info.namespace}/`;
  const matching = snapshot.filter(
    ([key, object]) => key.startsWith(prefix) && (!token || key >= token.start) && isSelected(object),
  );
  const hasMore = !ignoresLimit && limit > 0 && matching.length > limit;
  const page = hasMore ? matching.slice(0, limit) : matching;
  const metadata: JsonObject = { resourceVersion: String(revision) };
  if (hasMore) {
    metadata["continue"] = encodeContinue({ v: "meta.k8s.io/v1", rv: revision, start: `${page.at(-1)![0]}\0` });
    // with a selector the real server does not know how many remain
    if (!query.get("labelSelector") && !query.get("fieldSelector"))
      metadata["remainingItemCount"] = matching.length - limit;
  }
  exchange.send(
    200,
    render.contentType,
    render.list(
      page.map(([, object]) => object),
      metadata,
    ),
  );
}

/** A renderer for what this request accepts. @throws {Failure} 406. */
export function rendererFor(exchange: Exchange, resource: Resource): Renderer {
  const form = negotiate(exchange.header("accept"), resource.message !== undefined);
  return renderer(resource, form, (exchange.query.get("includeObject") ?? "Metadata") as IncludeObject);
}

/** How the store names an object. */
export const keyOf = (resource: Resource, namespace: string, name: string) =>
  objectKey(resource.isNamespaced ? namespace : "", name);

/** A revision from a query parameter. @throws {Failure} 400 when it is no number. */
export function revisionParameter(text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  throw badRequest(
    `invalid resource version: resourceVersion: Invalid value: "${text}": strconv.ParseUint: parsing "${text}": invalid syntax`,
  );
}

/** @throws {Failure} 504 for a revision that has not happened yet. */
export function requireReached(world: World, resourceVersion: string | null): void {
  if (!resourceVersion) return;
  const asked = revisionParameter(resourceVersion);
  if (asked > world.store.revision) throw tooLarge(asked, world.store.revision);
}

function listedAt(
  world: World,
  { query }: Exchange,
  resource: Resource,
  limit: number,
): { revision: number; snapshot: Snapshot; ignoresLimit: boolean } {
  const { store } = world;
  const asked = query.get("resourceVersion") ?? "";
  requireReached(world, asked);
  // a limit with a revision and no match means exactly that revision, from before resourceVersionMatch existed
  const isExact =
    query.get("resourceVersionMatch") === "Exact" ||
    (limit > 0 && asked !== "" && asked !== "0" && !query.get("resourceVersionMatch"));
  if (!isExact)
    return { revision: store.revision, snapshot: store.list(storageName(resource)), ignoresLimit: asked === "0" };
  const revision = revisionParameter(asked);
  const snapshot = store.listAt(storageName(resource), revision);
  if (!snapshot) throw expired("The resourceVersion for the provided list is too old.");
  return { revision, snapshot, ignoresLimit: false };
}

function continued(
  { store }: World,
  resource: Resource,
  token: ContinueToken,
): { revision: number; snapshot: Snapshot; ignoresLimit: boolean } {
  const snapshot = store.listAt(storageName(resource), token.rv);
  if (snapshot) return { revision: token.rv, snapshot, ignoresLimit: false };
  const inconsistent = encodeContinue({ v: "meta.k8s.io/v1", rv: -1, start: token.start });
  if (token.rv === -1)
    return { revision: store.revision, snapshot: store.list(storageName(resource)), ignoresLimit: false };
  throw new Failure({
    ...statusObject(
      410,
      "Expired",
      "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    ),
    metadata: { continue: inconsistent },
  });
}

const encodeContinue = (token: ContinueToken) =>
  Buffer.from(JSON.stringify({ ...token, start: `/${token.start}` })).toString("base64url");

function decodeContinue(text: string | null): ContinueToken | undefined {
  if (!text) return undefined;
  try {
    const token = JSON.parse(Buffer.from(text, "base64url").toString()) as ContinueToken;
    return { ...token, start: token.start.slice(1) };
  } catch {
    throw badRequest(
      "invalid continue token: continue key is not valid: invalid character looking for beginning of value",
    );
  }
}

function integerParameter(query: URLSearchParams, name: string): number {
  const text = query.get(name);
  if (text === null || text === "") return 0;
  if (!/^-?\d+$/.test(text)) throw badRequest(`strconv.ParseInt: parsing "${text}": invalid syntax`);
  return Math.max(0, Number(text));
}

const forbiddenField = (field: string, message: string) => ({
  field,
  reason: "FieldValueForbidden",
  message: `Forbidden: ${message}`,
});

function validateListOptions(query: URLSearchParams): void {
  const match = query.get("resourceVersionMatch") ?? "";
  const asked = query.get("resourceVersion") ?? "";
  const problems = [];
  if (match !== "") {
    if (asked === "")
      problems.push(
        forbiddenField("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
      );
    if (query.get("continue"))
      problems.push(
        forbiddenField("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"),
      );
    if (match !== "Exact" && match !== "NotOlderThan")
      problems.push({
        field: "resourceVersionMatch",
        reason: "FieldValueNotSupported",
        message: `Unsupported value: "${match}": supported values: "Exact", "NotOlderThan", ""`,
      });
    if (match === "Exact" && asked === "0")
      problems.push(
        forbiddenField("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'),
      );
  }
  if (query.has("sendInitialEvents"))
    problems.push(forbiddenField("sendInitialEvents", "sendInitialEvents is forbidden for list"));
  if (problems.length > 0) throw invalidOptions(problems);
  if (asked !== "") revisionParameter(asked);
  if (query.get("continue") && asked !== "" && asked !== "0")
    throw badRequest("specifying resource version is not allowed when using continue");
  fieldPairs(query.get("fieldSelector") ?? "");
}

/** @throws {Failure} 422 as the API server judges the options of a watch. */
export function validateWatchOptions(query: URLSearchParams, hasStreamingLists: boolean): void {
  const match = query.get("resourceVersionMatch") ?? "";
  const sendsInitial = query.has("sendInitialEvents");
  const problems = [];
  if (sendsInitial && match !== "NotOlderThan")
    problems.push(
      forbiddenField("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    );
  if (sendsInitial && !hasStreamingLists)
    problems.push(
      forbiddenField(
        "sendInitialEvents",
        "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
      ),
    );
  if (match !== "") {
    if (!sendsInitial)
      problems.push(
        forbiddenField(
          "resourceVersionMatch",
          "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
      );
    if (match !== "NotOlderThan")
      problems.push({
        field: "resourceVersionMatch",
        reason: "FieldValueNotSupported",
        message: `Unsupported value: "${match}": supported values: "NotOlderThan"`,
      });
    if (query.get("continue"))
      problems.push(
        forbiddenField("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"),
      );
  }
  if (problems.length > 0) throw invalidOptions(problems);
}
