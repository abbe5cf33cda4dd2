/**
 * Service-account tokens while cut: the kept one again, for pods in the node's
 * own list.
 */

import { MalformedError } from "../kube/codec.ts";
import { readTokenSpec } from "../kube/token-request.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { Caller } from "../callers/identify.ts";
import type { RequestInfo } from "../front/request-info.ts";
import { keptObject } from "./kept-object.ts";
import type { TokenOwner, TokenVault } from "./token-vault.ts";
import { answerWith, isAccepted, type Write, type WriteRow } from "./write.ts";

interface TokenParts {
  readonly scopes: Scopes;
  readonly tokens: TokenVault;
}

/** The row of a TokenRequest. */
export function tokenRow({ scopes, tokens }: TokenParts, { exchange, info, caller, body }: Write): WriteRow {
  const owner = tokenOwner(info, body);
  const kept = () =>
    owner !== undefined && isOwnPods(scopes, caller, owner)
      ? tokens.find(owner, (contentType) => isAccepted(exchange, contentType))
      : undefined;
  return {
    fallback: {
      find: () => {
        const answer = kept();
        if (owner === undefined || answer === undefined) return undefined;
        return () => {
          tokens.handedOut(owner, answer);
          answerWith(exchange, 201, answer);
        };
      },
    },
    learn: (answer) => {
      if (owner !== undefined) tokens.keep(owner, answer);
    },
  };
}

function isOwnPods(scopes: Scopes, caller: Caller, { namespace, serviceAccount, spec }: TokenOwner): boolean {
  if (spec.boundKind !== "Pod") return false;
  const pod = keptObject(scopes, caller.principal, { resource: "pods", namespace, name: spec.boundName });
  if (pod === undefined || pod.item.meta.uid !== spec.boundUid) return false;
  const { spec: podSpec } = JSON.parse(Buffer.from(pod.item.bytes).toString("utf8")) as {
    spec?: { serviceAccountName?: string };
  };
  return (podSpec?.serviceAccountName ?? "default") === serviceAccount;
}

function tokenOwner(info: RequestInfo, body: Uint8Array): TokenOwner | undefined {
  try {
    return { namespace: info.namespace, serviceAccount: info.name, spec: readTokenSpec(body) };
  } catch (error) {
    // The API server is the one to refuse it.
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}
