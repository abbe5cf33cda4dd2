/**
 * Who our own token makes us, when the kubeconfig holds a token.
 *
 * A local client on a certificate of the same user may then be served with
 * that token. A service-account token says so itself; of any other the API
 * server is asked once (SelfSubjectReview).
 */

import * as v from "valibot";
import { payloadOf } from "./token-claims.ts";

const subjectSchema = v.object({ sub: v.string() });
const reviewSchema = v.object({
  status: v.object({ userInfo: v.object({ username: v.string(), uid: v.optional(v.string()) }) }),
});

/** The subject of a service-account token; undefined for any other. */
export function serviceAccountOf(token: string): string | undefined {
  const read = v.safeParse(subjectSchema, payloadOf(token));
  return read.success && read.output.sub.startsWith("system:serviceaccount:") ? read.output.sub : undefined;
}

/** The body of a SelfSubjectReview request. */
export const SELF_SUBJECT_REVIEW = '{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}';

/** The user in a SelfSubjectReview answer; undefined when it is not one. */
export function accountOfReview(
  body: string,
): { readonly username: string; readonly uid?: string | undefined } | undefined {
  try {
    return v.parse(reviewSchema, JSON.parse(body)).status.userInfo;
  } catch {
    return undefined;
  }
}

/** Its name alone. */
export function userOfReview(body: string): string | undefined {
  return accountOfReview(body)?.username;
}
