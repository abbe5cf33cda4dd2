/**
 * Small questions to the API server: whether it knows a credential, what it says
 * of a path now, whether it is ready.
 */

import { abortsAfter, type Clock } from "../base/clock.ts";
import { SELF_SUBJECT_REVIEW } from "../callers/own-user.ts";
import type { RefusalParts } from "../callers/refusals.ts";
import type { Upstream, UpstreamCredential } from "../uplink/upstream.ts";

const QUESTION_DEADLINE_MS = 5_000;
const SELF_SUBJECT_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/** What is asked again of the API server where it has refused something. */
export function questionsOver(
  upstream: Upstream,
  ownCredential: () => UpstreamCredential,
  clock: Clock,
): Pick<RefusalParts, "statusOf" | "knows" | "isReady"> {
  const signal = () => abortsAfter(clock, QUESTION_DEADLINE_MS);
  const headers = [
    ["Accept", "application/json"],
    ["Accept-Encoding", "identity"],
  ] as const;
  const ask = async (target: string, credential: UpstreamCredential, body?: string) => {
    const question = { target, credential, signal: signal() };
    const answer = await upstream.request(
      body === undefined
        ? { ...question, method: "GET", headers }
        : {
            ...question,
            method: "POST",
            headers: [...headers, ["Content-Type", "application/json"]],
            body: new Uint8Array(Buffer.from(body)),
          },
    );
    await answer.bytes();
    return answer;
  };
  const statusOf = (target: string, credential: UpstreamCredential, body?: string) =>
    ask(target, credential, body).then(
      ({ word, status }) => (word === "unsaid" ? undefined : status),
      () => undefined,
    );
  return {
    statusOf,
    async knows(credential) {
      const status = await statusOf(SELF_SUBJECT_REVIEWS, credential, SELF_SUBJECT_REVIEW);
      return status === undefined || status >= 500 || status === 429 ? undefined : status !== 401;
    },
    // One that will not say so to us is as ready as its answers.
    isReady: () =>
      ask("/readyz", ownCredential()).then(
        ({ status }) => status < 500 && status !== 429,
        () => false,
      ),
  };
}
