/**
 * What a request asks for, read from its method and target as the API server
 * reads it.
 */

/** Who asks. */
export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly uid?: string;
}

/** A request taken apart. Non-resource requests have `resource` "". */
export interface RequestInfo {
  readonly verb: string;
  readonly path: string;
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
}

/** @throws {URIError} on a target with broken percent-encoding. */
export function requestInfo(method: string, target: string): RequestInfo {
  const url = new URL(target, "https://api.invalid");
  const path = target.split("?")[0]!;
  const segments = path.split("/").slice(1).map(decodeURIComponent);
  const isCore = segments[0] === "api";
  const nothing = {
    verb: method.toLowerCase(),
    path,
    group: "",
    version: "",
    resource: "",
    subresource: "",
    namespace: "",
    name: "",
  };
  if (!isCore && segments[0] !== "apis") return nothing;
  const [group = "", version = "", ...rest] = isCore ? ["", ...segments.slice(1)] : segments.slice(1);
  if (rest.length === 0 || rest[0] === "") return { ...nothing, group, version };
  const isScoped = rest[0] === "namespaces" && rest.length > 2 && !["status", "finalize"].includes(rest[2]!);
  const [resource = "", pathName = "", subresource = ""] = isScoped ? rest.slice(2) : rest;
  const namespace = isScoped ? rest[1]! : resource === "namespaces" ? pathName : "";
  const verb = verbOf(method, pathName, url.searchParams);
  const name = pathName || (["list", "watch", "deletecollection"].includes(verb) ? nameSelected(url.searchParams) : "");
  return { verb, path, group, version, resource, subresource, namespace, name };
}

function verbOf(method: string, name: string, query: URLSearchParams): string {
  switch (method) {
    case "POST":
      return "create";
    case "PUT":
      return "update";
    case "PATCH":
      return "patch";
    case "DELETE":
      return name ? "delete" : "deletecollection";
    default:
      if (name) return "get";
      return isTrue(query.get("watch")) ? "watch" : "list";
  }
}

/** Whether a query parameter switches something on. */
export const isTrue = (value: string | null) => value !== null && value.toLowerCase() !== "false" && value !== "0";

function nameSelected(query: URLSearchParams): string {
  return /(?:^|,)metadata\.name==?([^,]+)/.exec(query.get("fieldSelector") ?? "")?.[1] ?? "";
}
