/**
 * Refusals in the API server's own words.
 */

import type { JsonObject } from "./schema.ts";

/** Thrown by any handler; becomes a v1 Status. */
export class Failure extends Error {
  override readonly name = "Failure";

  constructor(
    readonly status: JsonObject & { code: number },
    readonly headers: Record<string, string> = {},
  ) {
    super(String(status["message"]));
  }
}

/** A Status of kind Failure. `details` is left out when undefined. */
export function statusObject(
  code: number,
  reason: string,
  message: string,
  details?: JsonObject,
): JsonObject & { code: number } {
  return {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Failure",
    message,
    ...(reason ? { reason } : {}),
    ...(details ? { details } : {}),
    code,
  };
}

const fail = (code: number, reason: string, message: string, details?: JsonObject, headers?: Record<string, string>) =>
  new Failure(statusObject(code, reason, message, details), headers);

/** What a message about one object names; `kind` is the resource's plural name. */
export interface Subject {
  readonly group: string;
  readonly resource: string;
}

const qualified = ({ group, resource }: Subject) => (group === "" ? resource : `${resource}.${group}`);
const detailsOf = ({ group, resource }: Subject, name: string): JsonObject => ({
  ...(name ? { name } : {}),
  ...(group ? { group } : {}),
  kind: resource,
});

/** 400, in the API server's words. */
export const badRequest = (message: string) => fail(400, "BadRequest", message);
/** 401. */
export const unauthorized = () => fail(401, "Unauthorized", "Unauthorized");
/** 403, naming user, verb and resource. */
export const forbidden = (of: Subject, name: string, message: string) =>
  fail(403, "Forbidden", `${qualified(of)}${name ? ` "${name}"` : ""} is forbidden: ${message}`, detailsOf(of, name));
/** 404 for an object. */
export const notFound = (of: Subject, name: string) =>
  fail(404, "NotFound", `${qualified(of)} "${name}" not found`, detailsOf(of, name));
/** 404 for a resource that is not served. */
export const noSuchResource = () => fail(404, "NotFound", "the server could not find the requested resource", {});
/** 405. */
export const methodNotAllowed = () =>
  fail(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {});
/** 406, listing what there is. */
export const notAcceptable = (available: readonly string[]) =>
  fail(406, "NotAcceptable", `only the following media types are accepted: ${available.join(", ")}`);
/** 406 for a kind that cannot be shown as asked. */
export const unavailableAs = (available: string) =>
  fail(406, "NotAcceptable", `406: Not Acceptable\n\nAvailable representations: ${available}`, {});
/** 409 for a name that is taken. */
export const alreadyExists = (of: Subject, name: string) =>
  fail(409, "AlreadyExists", `${qualified(of)} "${name}" already exists`, detailsOf(of, name));
/** 409 for an object that has changed. */
export const conflict = (
  of: Subject,
  name: string,
  why = "the object has been modified; please apply your changes to the latest version and try again",
) => fail(409, "Conflict", `Operation cannot be fulfilled on ${qualified(of)} "${name}": ${why}`, detailsOf(of, name));
/** 409 for a DELETE whose preconditions do not hold; it names the kind, not the resource. */
export function preconditionFailed(
  { group, kind }: { group: string; kind: string },
  name: string,
  field: string,
  asked: string,
  held: string,
): Failure {
  const fate = field === "UID" ? "deleted and then recreated" : "modified";
  const message = `Operation cannot be fulfilled on ${kind}${group ? `.${group}` : ""} "${name}": the ${field} in the precondition (${asked}) does not match the ${field} in record (${held}). The object might have been ${fate}`;
  return fail(409, "Conflict", message, { name, ...(group ? { group } : {}), kind });
}
/** 410 for history that is gone. */
export const expired = (message: string) => fail(410, "Expired", message);
/** 415. */
export const unsupportedMediaType = (message: string) => fail(415, "UnsupportedMediaType", message);

/** 422 for query parameters that do not go together. */
export function invalidOptions(problems: readonly { field: string; reason: string; message: string }[]): Failure {
  const listed = problems.map(({ field, message }) => `${field}: ${message}`);
  const message = listed.length === 1 ? listed[0] : `[${listed.join(", ")}]`;
  const causes = problems.map(({ field, reason, message }) => ({ reason, message, field }));
  return fail(422, "Invalid", `ListOptions.meta.k8s.io "" is invalid: ${message}`, {
    group: "meta.k8s.io",
    kind: "ListOptions",
    causes,
  });
}

/** 422 for an object that breaks a rule. */
export function invalidObject(
  group: string,
  kind: string,
  name: string,
  field: string,
  reason: string,
  message: string,
): Failure {
  return fail(422, "Invalid", `${kind}${group ? `.${group}` : ""} "${name}" is invalid: ${field}: ${message}`, {
    ...(name ? { name } : {}),
    ...(group ? { group } : {}),
    kind,
    causes: [{ reason, message, field }],
  });
}

/** 504 for a resourceVersion that has not happened yet. */
export function tooLarge(asked: number, current: number): Failure {
  return fail(
    504,
    "Timeout",
    `Timeout: Too large resource version: ${asked}, current: ${current}`,
    { causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }], retryAfterSeconds: 1 },
    { "retry-after": "1" },
  );
}
