/**
 * AdmissionReview v1 at the door, and the answer on its way out.
 *
 * A review is read as far as the judges need it: fields nobody asks for are
 * not looked at, and the objects inside are parsed by the judge that knows
 * their kind. What cannot be read is refused over HTTP with the field's name,
 * so that the API server's failurePolicy decides, and not a guess of ours.
 *
 * Source: k8s.io/api/admission/v1, types.go.
 */

import * as v from "valibot";
import { EdgeError } from "../base/errors.ts";
import type { JsonPatchOperation } from "../cluster/api.ts";

/** Who asks. */
export interface ReviewUser {
  readonly username: string;
  readonly groups: readonly string[];
}

/** The request of a review; `object` and `oldObject` as they came. */
export interface AdmissionRequest {
  readonly uid: string;
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "CONNECT";
  readonly group: string;
  readonly resource: string;
  /** Empty for the object itself. */
  readonly subresource: string;
  readonly namespace: string;
  /** Empty where the server is yet to make one up. */
  readonly name: string;
  readonly user: ReviewUser;
  readonly isDryRun: boolean;
  readonly object: unknown;
  readonly oldObject: unknown;
}

/** What is answered. */
export interface AdmissionAnswer {
  readonly uid: string;
  readonly allowed: boolean;
  /** Of a refusal: what the client is told. */
  readonly message?: string;
  /** Applied by the API server to the object it sent; none when empty. */
  readonly patch?: readonly JsonPatchOperation[];
  /** Shown to the client beside its answer. */
  readonly warnings?: readonly string[];
  /** Written to the audit log, each key with the webhook's name before it. */
  readonly auditAnnotations?: Readonly<Record<string, string>>;
}

/** A review that cannot be read; becomes a Status with this HTTP code. */
export class ReviewError extends EdgeError {
  override readonly name = "ReviewError";
  readonly code = "REVIEW";

  /** @param status of the HTTP answer, 4xx. */
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

const API_VERSION = "admission.k8s.io/v1";
const KIND = "AdmissionReview";

const text = v.string("expected a string");
const reviewSchema = v.object(
  {
    apiVersion: v.literal(API_VERSION, `expected "${API_VERSION}"`),
    kind: v.literal(KIND, `expected "${KIND}"`),
    request: v.object(
      {
        uid: v.pipe(text, v.nonEmpty("expected the request's uid, which the answer must repeat")),
        operation: v.picklist(["CREATE", "UPDATE", "DELETE", "CONNECT"], "expected CREATE, UPDATE, DELETE or CONNECT"),
        resource: v.object({ group: text, resource: text }, "expected group, version and resource"),
        subResource: v.nullish(text, ""),
        namespace: v.nullish(text, ""),
        name: v.nullish(text, ""),
        userInfo: v.object(
          { username: v.nullish(text, ""), groups: v.nullish(v.array(text, "expected a list"), []) },
          "expected username and groups",
        ),
        dryRun: v.nullish(v.boolean("expected true or false"), false),
        object: v.unknown(),
        oldObject: v.unknown(),
      },
      "expected the request of a review",
    ),
  },
  "expected a JSON object",
);

/**
 * Reads a review.
 *
 * @throws {ReviewError} naming the field, its shape and the next step.
 */
export function readReview(body: unknown): AdmissionRequest {
  const parsed = v.safeParse(reviewSchema, body, { abortEarly: true });
  if (!parsed.success) throw fieldError(parsed.issues[0]);
  const { request } = parsed.output;
  return {
    uid: request.uid,
    operation: request.operation,
    group: request.resource.group,
    resource: request.resource.resource,
    subresource: request.subResource,
    namespace: request.namespace,
    name: request.name,
    user: request.userInfo,
    isDryRun: request.dryRun,
    object: request.object,
    oldObject: request.oldObject,
  };
}

/**
 * Reads an object inside a review.
 *
 * @param field its name in the request, for the message.
 * @throws {ReviewError}
 */
export function readObject<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  field: "object" | "oldObject",
): v.InferOutput<S> {
  const parsed = v.safeParse(schema, value, { abortEarly: true });
  if (!parsed.success) throw fieldError(parsed.issues[0], `request.${field}`);
  return parsed.output;
}

/** The answer's body. */
export function reviewAnswer(answer: AdmissionAnswer): string {
  const { uid, allowed, message, patch = [], warnings = [], auditAnnotations } = answer;
  return JSON.stringify({
    apiVersion: API_VERSION,
    kind: KIND,
    response: {
      uid,
      allowed,
      // 403 and nothing else: a controller takes 404 for "gone already" and 409 for "try again at once".
      status: allowed ? undefined : { status: "Failure", code: 403, reason: "Forbidden", message },
      ...(patch.length === 0 ? {} : { patchType: "JSONPatch", patch: btoa(JSON.stringify(patch)) }),
      warnings: warnings.length === 0 ? undefined : warnings,
      auditAnnotations,
    },
  });
}

function fieldError(issue: v.BaseIssue<unknown>, root = ""): ReviewError {
  const path = (issue.path ?? []).map(({ key }) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  const field = `${root}${path}`.replace(/^\./, "");
  return new ReviewError(
    `Cannot read the AdmissionReview${field === "" ? "" : `, ${field}`}: ${issue.message}; compare the webhook's configuration with holdfast manifests`,
    400,
  );
}
