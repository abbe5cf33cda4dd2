/**
 * Who asks: certificates, tokens, and the service accounts behind them.
 */

import { Gate } from "../callers/gate.ts";
import { Identifier } from "../callers/identify.ts";
import { SELF_SUBJECT_REVIEW, serviceAccountOf, userOfReview } from "../callers/own-user.ts";
import { RefusedTokens } from "../callers/refused-tokens.ts";
import { ServiceAccounts } from "../callers/service-accounts.ts";
import { askSmall, datesOf, isSignedForClients, nodeOf, subjectOf } from "../node/own-node.ts";
import { lastPodUids } from "../node/own-pods.ts";
import type { Copies } from "./copies.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import type { Store } from "../store/contract.ts";
import { textOf } from "./state.ts";
import type { Uplink } from "./uplink.ts";

/** What is built here. */
export interface Callers {
  readonly gate: Gate;
  /** When the certificates of those who came end, ms since the epoch by CN. */
  readonly seen: () => ReadonlyMap<string, number>;
  readonly part: Part;
}

const OWN_USER_KEY = "own-token-user";

/** Builds it. */
export function buildCallers(ground: Ground, uplink: Uplink, { scopes, refusals }: Copies): Callers {
  const { config, clock, log, signal, store } = ground;
  const { upstream, link, sources } = uplink;
  const own = config.upstream.credential;
  const refusedTokens = new RefusedTokens(store);
  const ownUser: { name?: string } = {};
  const serviceAccounts = new ServiceAccounts({
    ask: (request, credential, deadlineMs) => askSmall(upstream, request, credential, deadlineMs, signal),
    isOnline: () => link.isOnline(),
    patienceMs: () => link.patienceMs,
    ownPods: () => {
      const node = nodeOf(own);
      return node === undefined ? undefined : lastPodUids(scopes, node);
    },
    refusedTokens,
    expiredTokensFor: config.expiredTokensFor,
    store,
    clock,
    log,
  });
  const identifier = new Identifier(
    {
      own,
      ownTokenUser: () => ownUser.name,
      clients: config.clients,
      keyedHash: (text) => store.keyedHash(text),
      signedForClients: (certificate) => isSignedForClients(certificate, config.clientCaPem()),
      datesOf,
      heldAtTheCut: heldAtTheCut(ground, link),
      isRefused: (id) => refusedTokens.has(id) && !link.isOnline(),
      serviceAccountOf: (token) => serviceAccounts.principalOf(token),
    },
    subjectOf,
  );
  const part: Part = { name: "callers", start: () => learnOwnUser(ground, uplink, ownUser) };
  const gate = new Gate({
    identifier,
    serviceAccounts,
    refusedTokens,
    sources,
    onAccepted: (principal, asked) => refusals.accepted(principal, asked),
    known: principalsOf(store),
  });
  return { gate, seen: () => identifier.seen, part };
}

/** Whether a certificate that ends then was good when the API server was last heard, and nothing has been heard since. */
function heldAtTheCut({ clock, renewals }: Ground, link: Uplink["link"]): (notAfterMs: number) => boolean {
  // Of a cut that began before our start the last trusted time is known, and not when the link was found dead.
  let lostAtMs: number | undefined;
  let wasOnline = false;
  link.onChange((isOnline) => {
    lostAtMs = wasOnline && !isOnline ? clock.nowMs() : undefined;
    wasOnline = isOnline;
    if (!isOnline) renewals.lost();
  });
  return (notAfterMs) => link.state !== "online" && notAfterMs >= (lostAtMs ?? renewals.trustedAtMs);
}

/** Of whom something is kept: the API server has said yes to them in a former life. */
function principalsOf(store: Store): ReadonlySet<string> {
  const principals = new Set<string>();
  for (const { identity } of store.copies()) principals.add(identity.principal);
  for (const { key } of store.listResponses()) principals.add(key.principal);
  return principals;
}

/** Whom our own token makes us: it says so itself, or it is remembered, or the API server is asked once. */
function learnOwnUser(ground: Ground, uplink: Uplink, ownUser: { name?: string }): void {
  const { config, store } = ground;
  const own = config.upstream.credential;
  if (own.kind !== "token") return;
  const known = serviceAccountOf(own.read()) ?? textOf(store.getValue(OWN_USER_KEY));
  if (known !== undefined) {
    ownUser.name = known;
    return;
  }
  void askOwnUser(ground, uplink).then(
    (user) => {
      if (user === undefined) return;
      ownUser.name = user;
      store.putValue(OWN_USER_KEY, Buffer.from(user));
    },
    () => {},
  );
}

async function askOwnUser({ signal }: Ground, { upstream, ownCredential }: Uplink): Promise<string | undefined> {
  const response = await upstream.request({
    method: "POST",
    target: "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    headers: [
      ["Content-Type", "application/json"],
      ["Accept", "application/json"],
    ],
    body: new Uint8Array(Buffer.from(SELF_SUBJECT_REVIEW)),
    credential: ownCredential(),
    signal,
  });
  return response.status === 201 || response.status === 200 ? userOfReview(await response.text()) : undefined;
}
