/**
 * Reviews and tokens: questions that are answered and not stored.
 */

import type { Exchange } from "./exchange.ts";
import { badRequest, conflict, notFound } from "./failure.ts";
import { rendererFor } from "./read.ts";
import type { RequestInfo, User } from "./request.ts";
import type { Resource } from "./resources.ts";
import { child, messageOf, textAt, type JsonObject } from "./schema.ts";
import { ISSUER } from "./tokens.ts";
import type { World } from "./world.ts";
import { readObject } from "./write.ts";

/** Who may do what; the stand-in's RBAC. */
export type Authorize = (user: User, info: RequestInfo) => boolean;
/** Who a bearer token is. */
export type JudgeToken = (token: string, audiences: readonly string[]) => User | undefined;

/** Answers a POST of a review. */
export async function serveReview(
  exchange: Exchange,
  resource: Resource,
  authorize: Authorize,
  judge: JudgeToken,
): Promise<void> {
  const render = rendererFor(exchange, resource);
  const given = await readObject(exchange, resource);
  const spec = child(given, "spec");
  const status = (): JsonObject => {
    switch (resource.kind) {
      case "SelfSubjectReview":
        return { userInfo: userInfo(exchange.user) };
      case "TokenReview":
        return tokenReview(spec, judge);
      case "SelfSubjectAccessReview":
        return { allowed: authorize(exchange.user, attributes(spec)) };
      default:
        return {
          allowed: authorize(
            { name: textAt(spec, "user"), groups: Array.isArray(spec["groups"]) ? spec["groups"].map(String) : [] },
            attributes(spec),
          ),
        };
    }
  };
  const answer =
    resource.kind === "SelfSubjectReview"
      ? { metadata: child(given, "metadata"), status: status() }
      : { metadata: child(given, "metadata"), spec, status: status() };
  exchange.send(201, render.contentType, render.single(answer));
}

const userInfo = ({ name, groups, uid }: User): JsonObject => ({
  username: name,
  ...(uid ? { uid } : {}),
  groups: [...groups],
});

function tokenReview(spec: JsonObject, judge: JudgeToken): JsonObject {
  const audiences = Array.isArray(spec["audiences"]) ? spec["audiences"].map(String) : [ISSUER];
  const user = judge(textAt(spec, "token"), audiences);
  if (!user) return { user: {}, error: "invalid bearer token" };
  return { authenticated: true, user: userInfo(user), audiences };
}

function attributes(spec: JsonObject): RequestInfo {
  const of = child(spec, "resourceAttributes");
  const path = textAt(child(spec, "nonResourceAttributes"), "path");
  const text = (field: string) => textAt(of, field);
  const verb = text("verb") || textAt(child(spec, "nonResourceAttributes"), "verb");
  return {
    verb,
    path,
    group: text("group"),
    version: text("version"),
    resource: text("resource"),
    subresource: text("subresource"),
    namespace: text("namespace"),
    name: text("name"),
  };
}

/** Answers a POST of serviceaccounts/NAME/token. */
export async function serveTokenRequest(world: World, exchange: Exchange): Promise<void> {
  const { namespace, name } = exchange.info;
  const account = world.store.get("serviceaccounts", `${namespace}/${name}`);
  if (!account) throw notFound({ group: "", resource: "serviceaccounts" }, name);
  const request: Resource = {
    group: "authentication.k8s.io",
    version: "v1",
    resource: "tokenrequests",
    singular: "",
    kind: "TokenRequest",
    listKind: "",
    isNamespaced: true,
    shortNames: [],
    hasStatus: false,
    subresources: [],
    isCustom: false,
    fieldSelectors: [],
    message: messageOf("authentication.k8s.io", "TokenRequest"),
    isReview: true,
  };
  const render = rendererFor(exchange, request);
  const given = await readObject(exchange, request);
  const spec = child(given, "spec");
  const expirationSeconds = Number(spec["expirationSeconds"] ?? 3600) || 3600;
  if (expirationSeconds < 600) throw badRequest("may not specify a duration less than 10 minutes");
  const asked = Array.isArray(spec["audiences"]) ? spec["audiences"].map(String) : [];
  const audiences = asked.length > 0 ? asked : [ISSUER];
  const pod = boundPod(world, namespace, child(spec, "boundObjectRef"));
  // a pod-bound request of exactly 3607 s gets a year, as --service-account-extend-token-expiration has it
  const isExtended = pod !== undefined && expirationSeconds === 3607 && audiences.includes(ISSUER);
  const { token } = world.tokens.issue({
    namespace,
    serviceAccount: name,
    serviceAccountUid: textAt(account, "metadata.uid"),
    audiences,
    expirationSeconds: isExtended ? 365 * 86_400 : expirationSeconds,
    ...(pod ? { pod } : {}),
  });
  const expirationTimestamp = new Date(Date.now() + expirationSeconds * 1000).toISOString().replace(/\.\d+/, "");
  const creationTimestamp = new Date().toISOString().replace(/\.\d+/, "");
  const answer: JsonObject = {
    metadata: { name, namespace, creationTimestamp },
    spec: { audiences, expirationSeconds, boundObjectRef: spec["boundObjectRef"] ?? null },
    status: { token, expirationTimestamp },
  };
  exchange.send(201, render.contentType, render.single(answer));
}

function boundPod(world: World, namespace: string, reference: JsonObject): { name: string; uid: string } | undefined {
  if (textAt(reference, "kind") !== "Pod") return undefined;
  const name = textAt(reference, "name");
  const pod = world.store.get("pods", `${namespace}/${name}`);
  if (!pod) throw notFound({ group: "", resource: "pods" }, name);
  const uid = textAt(pod, "metadata.uid");
  const asked = textAt(reference, "uid");
  if (asked && asked !== uid)
    throw conflict(
      { group: "", resource: "pods" },
      name,
      `the UID in the bound object reference (${asked}) does not match the UID in record. The object might have been deleted and then recreated`,
    );
  return { name, uid };
}
