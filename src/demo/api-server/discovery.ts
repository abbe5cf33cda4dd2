/**
 * What the server says about itself: versions, groups, resources, OpenAPI,
 * health and keys.
 */

import { createHash } from "node:crypto";
import type { Exchange } from "./exchange.ts";
import { noSuchResource, unavailableAs } from "./failure.ts";
import { mediaRanges } from "./negotiate.ts";
import { apiVersionOf, type Resource } from "./resources.ts";
import type { JsonObject } from "./schema.ts";
import { ISSUER } from "./tokens.ts";
import type { World } from "./world.ts";

const VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/** kubectl downloads this before it applies anything: Document { 1 swagger, 2 Info { 1 title, 2 version }, 8 Paths }, with no kind described. */
const OPENAPI_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2";
const EMPTY_OPENAPI_V2 = Buffer.concat([
  Buffer.from([0x0a, 3]),
  Buffer.from("2.0"),
  Buffer.from([0x12, 21, 0x0a, 10]),
  Buffer.from("Kubernetes"),
  Buffer.from([0x12, 7]),
  Buffer.from("v1.37.2"),
  Buffer.from([0x42, 0]),
]);

/** What /version answers. */
export const VERSION: JsonObject = {
  major: "1",
  minor: "37",
  emulationMajor: "1",
  emulationMinor: "37",
  minCompatibilityMajor: "1",
  minCompatibilityMinor: "36",
  gitVersion: "v1.37.2",
  gitCommit: "0000000000000000000000000000000000000000",
  gitTreeState: "clean",
  buildDate: "2026-01-01T00:00:00Z",
  goVersion: "go1.26.8",
  compiler: "gc",
  platform: "linux/amd64",
};

/** Paths anybody may read, as RBAC's public-info-viewer grants. */
export const isPublic = (path: string) => /^\/(livez|readyz|healthz|version)(\/|$)/.test(path);

/** Answers a path that names no resource. @throws {Failure} 404 for group versions that are not served. */
export function serveDiscovery(world: World, exchange: Exchange): void {
  const path = exchange.info.path.replace(/(.)\/$/, "$1");
  if (/^\/(livez|readyz|healthz)(\/|$)/.test(path)) return serveHealth(exchange, path);
  switch (path) {
    case "/version":
      return exchange.sendJson(200, VERSION);
    case "/api":
      return isAggregated(exchange)
        ? sendAggregated(world, exchange, (group) => group === "")
        : exchange.sendJson(200, coreVersions(exchange));
    case "/apis":
      return isAggregated(exchange)
        ? sendAggregated(world, exchange, (group) => group !== "")
        : exchange.sendJson(200, { kind: "APIGroupList", apiVersion: "v1", groups: groups(world) });
    case "/openapi/v2":
      if (exchange.header("accept").includes(OPENAPI_V2_PROTOBUF))
        return exchange.send(200, `${OPENAPI_V2_PROTOBUF}.v1.0+protobuf`, EMPTY_OPENAPI_V2);
      return sendTagged(exchange, {
        swagger: "2.0",
        info: { title: "Kubernetes", version: "v1.37.2" },
        paths: {},
        definitions: {},
      });
    case "/openapi/v3":
      return sendTagged(exchange, { paths: openApiPaths(world) });
    case "/openid/v1/jwks":
      return serveKeys(world, exchange);
    case "/.well-known/openid-configuration":
      return exchange.sendJson(200, {
        issuer: ISSUER,
        jwks_uri: `${ISSUER}/openid/v1/jwks`,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["ES256"],
      });
    default:
      return serveGroup(world, exchange, path);
  }
}

const JWK_SET = "application/jwk-set+json";

/** Only as a JWK set: `Accept: application/json` alone is refused, as by the real server. */
function serveKeys(world: World, exchange: Exchange): void {
  const accepted = mediaRanges(exchange.header("accept") || "*/*").map(({ type }) => type);
  if (![JWK_SET, "application/*", "*/*"].some((type) => accepted.includes(type))) throw unavailableAs(JWK_SET);
  exchange.send(200, JWK_SET, Buffer.from(JSON.stringify(world.tokens.jwks())), {
    "cache-control": "public, max-age=3600",
  });
}

function serveHealth(exchange: Exchange, path: string): void {
  if (exchange.query.has("verbose"))
    exchange.sendText(200, `[+]ping ok\n[+]etcd ok\n${path.split("/")[1]} check passed\n`);
  else exchange.sendText(200, "ok");
}

function serveGroup(world: World, exchange: Exchange, path: string): void {
  const [root, group = "", version = ""] = path.startsWith("/api/")
    ? ["api", "", path.slice(5)]
    : path.slice(1).split("/");
  if (root === "openapi")
    return sendTagged(exchange, { openapi: "3.0.0", info: { title: "Kubernetes", version: "v1.37.2" }, paths: {} });
  const served = world.resources.all().filter((one) => one.group === group && one.version === version);
  if ((root === "api" || root === "apis") && served.length > 0) return exchange.sendJson(200, resourceList(served));
  const found = root === "apis" && !version ? groups(world).find(({ name }) => name === group) : undefined;
  if (found) return exchange.sendJson(200, { kind: "APIGroup", apiVersion: "v1", ...found });
  if (root === "api" || (root === "apis" && world.resources.hasGroup(group))) throw noSuchResource();
  exchange.sendText(404, "404 page not found\n");
}

function coreVersions(exchange: Exchange): JsonObject {
  return {
    kind: "APIVersions",
    versions: ["v1"],
    serverAddressByClientCIDRs: [{ clientCIDR: "0.0.0.0/0", serverAddress: exchange.header("host") }],
  };
}

function groups(world: World): JsonObject[] {
  const byGroup = Map.groupBy(
    world.resources.groupVersions().filter(({ group }) => group !== ""),
    ({ group }) => group,
  );
  return [...byGroup].map(([name, members]) => {
    const versions = members.map(({ group, version }) => ({ groupVersion: `${group}/${version}`, version }));
    return { name, versions, preferredVersion: versions[0]! };
  });
}

const verbsOf = ({ isReview }: Resource) => (isReview ? ["create"] : VERBS);
const subresourcesOf = (one: Resource) => [...(one.hasStatus ? ["status"] : []), ...one.subresources];
const subresourceVerbs = (name: string) =>
  ["log"].includes(name)
    ? ["get"]
    : ["token", "eviction", "binding"].includes(name)
      ? ["create"]
      : ["exec", "attach", "portforward"].includes(name)
        ? ["create", "get"]
        : ["get", "patch", "update"];

function resourceList(served: readonly Resource[]): JsonObject {
  const resources = served.flatMap((one) => [
    {
      name: one.resource,
      singularName: one.singular,
      namespaced: one.isNamespaced,
      kind: one.kind,
      verbs: verbsOf(one),
      ...(one.shortNames.length > 0 ? { shortNames: [...one.shortNames] } : {}),
    },
    ...subresourcesOf(one).map((name) => ({
      name: `${one.resource}/${name}`,
      singularName: "",
      namespaced: one.isNamespaced,
      kind: one.kind,
      verbs: subresourceVerbs(name),
    })),
  ]);
  return { kind: "APIResourceList", apiVersion: "v1", groupVersion: apiVersionOf(served[0]!), resources };
}

function isAggregated(exchange: Exchange): boolean {
  return mediaRanges(exchange.header("accept")).some(
    ({ parameters }) =>
      parameters["g"] === "apidiscovery.k8s.io" &&
      parameters["v"] === "v2" &&
      parameters["as"] === "APIGroupDiscoveryList",
  );
}

function sendAggregated(world: World, exchange: Exchange, isMeant: (group: string) => boolean): void {
  const byGroup = Map.groupBy(
    world.resources.groupVersions().filter(({ group }) => isMeant(group)),
    ({ group }) => group,
  );
  const items = [...byGroup].map(([name, versions]) => ({
    metadata: name ? { name } : {},
    versions: versions.map(({ group, version }) => ({
      version,
      resources: world.resources
        .all()
        .filter((one) => one.group === group && one.version === version)
        .map(aggregatedResource),
      freshness: "Current",
    })),
  }));
  sendTagged(
    exchange,
    { kind: "APIGroupDiscoveryList", apiVersion: "apidiscovery.k8s.io/v2", metadata: {}, items },
    AGGREGATED,
  );
}

function aggregatedResource(one: Resource): JsonObject {
  const responseKind = { group: one.group, version: one.version, kind: one.kind };
  const subresources = subresourcesOf(one).map((subresource) => ({
    subresource,
    responseKind,
    verbs: subresourceVerbs(subresource),
  }));
  return {
    resource: one.resource,
    responseKind,
    scope: one.isNamespaced ? "Namespaced" : "Cluster",
    singularResource: one.singular,
    verbs: verbsOf(one),
    ...(one.shortNames.length > 0 ? { shortNames: [...one.shortNames] } : {}),
    ...(subresources.length > 0 ? { subresources } : {}),
  };
}

function openApiPaths(world: World): JsonObject {
  return Object.fromEntries(
    world.resources.groupVersions().map(({ group, version }) => {
      const path = group === "" ? `api/${version}` : `apis/${group}/${version}`;
      return [path, { serverRelativeURL: `/openapi/v3/${path}?hash=0` }];
    }),
  );
}

/** With an ETag, and 304 to who has it already. */
function sendTagged(exchange: Exchange, document: JsonObject, contentType = "application/json"): void {
  const body = Buffer.from(`${JSON.stringify(document)}\n`);
  const etag = `"${createHash("sha512").update(body).digest("hex").toUpperCase()}"`;
  const headers = { etag, vary: "Accept", "cache-control": "public" };
  if (exchange.header("if-none-match") === etag) exchange.send(304, contentType, new Uint8Array(), headers);
  else exchange.send(200, contentType, body, headers);
}
