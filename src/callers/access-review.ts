/**
 * Asks the API server what a caller may, with that caller's own credential.
 *
 * Every authenticated user may ask this of itself (system:basic-user). The
 * question names no object and no selector: yes means the whole collection.
 *
 * Source: k8s.io/api authorization/v1, SelfSubjectAccessReview.
 */

import { betweenNow } from "../base/asked.ts";
import * as v from "valibot";
import type { AccessReviewer, Collection, ReadVerb } from "./permissions.ts";
import { UnreachableError } from "../uplink/scope-source.ts";
import type { ScopeUpstream } from "../uplink/scope-upstream.ts";
import { reasonOf, type Upstream, type UpstreamCredential } from "../uplink/upstream.ts";

const answerSchema = v.object({ status: v.object({ allowed: v.boolean() }) });

/** Access reviews through the upstream. */
export class AccessReviews implements AccessReviewer {
  constructor(
    private readonly upstream: Upstream,
    private readonly sources: Pick<ScopeUpstream, "credentialOf" | "accepted">,
  ) {}

  async mayAccess(
    principal: string,
    verb: ReadVerb,
    collection: Collection,
    signal: AbortSignal,
  ): Promise<boolean | undefined> {
    const credential = this.sources.credentialOf(principal);
    if (credential === undefined) return undefined;
    const asked = betweenNow();
    const verdict = await this.review(credential, verb, collection, signal);
    if (verdict === true) this.sources.accepted(principal, asked);
    return verdict;
  }

  /** What the API server says to this credential; undefined when it gives no verdict. @throws {UnreachableError} */
  async review(
    credential: UpstreamCredential,
    verb: ReadVerb,
    collection: Collection,
    signal: AbortSignal,
  ): Promise<boolean | undefined> {
    const { group, version, resource, namespace } = collection;
    const question = {
      kind: "SelfSubjectAccessReview",
      apiVersion: "authorization.k8s.io/v1",
      spec: { resourceAttributes: { verb, group, version, resource, namespace } },
    };
    const response = await this.upstream.request({
      method: "POST",
      target: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
      headers: [
        ["Content-Type", "application/json"],
        ["Accept", "application/json"],
        ["Accept-Encoding", "identity"],
      ],
      body: new Uint8Array(Buffer.from(JSON.stringify(question))),
      credential,
      signal,
    });
    const text = await response.text().catch((error: unknown) => {
      throw new UnreachableError(`The API server's answer broke off: ${reasonOf(error)}`, { cause: error });
    });
    return response.status === 201 ? verdictIn(text) : undefined;
  }
}

function verdictIn(text: string): boolean | undefined {
  try {
    return v.parse(answerSchema, JSON.parse(text)).status.allowed;
  } catch {
    return undefined;
  }
}
