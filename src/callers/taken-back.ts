/**
 * A permission was taken back: what else of its caller's was?
 *
 * The API server is asked once for every other list that is kept for it, with
 * its own credential, a few at once, and within a second and a half: so long
 * the caller waits for its refusal, so that no cut falls in between.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { ListedState, ScopeIdentity } from "../store/contract.ts";
import { UpstreamRefusedError } from "../uplink/scope-source.ts";
import type { ScopeUpstream } from "../uplink/scope-upstream.ts";

/** What is asked, and of what. */
export interface TakenBackParts {
  readonly scopes: {
    all(): Iterable<{ readonly identity: ScopeIdentity; readonly listed: ListedState | undefined }>;
  };
  readonly source: Pick<ScopeUpstream, "list" | "credentialOf">;
  readonly clock: Clock;
  readonly log: Log;
}

const ASKED_AT_ONCE = 8;
const DEADLINE_MS = 1_500;

/** Asks for every list that is kept for a caller. @param onForbidden told of each that is refused. */
export async function askOthers(
  { clock, log, scopes, source }: TakenBackParts,
  principal: string,
  onForbidden: (identity: ScopeIdentity) => void,
): Promise<void> {
  if (source.credentialOf(principal) === undefined) return;
  const asked = [...scopes.all()].filter(
    ({ identity, listed }) => identity.principal === principal && listed !== undefined,
  );
  const deadline = new AbortController();
  const cancel = clock.after(DEADLINE_MS, () => deadline.abort(new Error("no answer in time")));
  let next = 0;
  let withheld = 0;
  const askOn = async () => {
    for (let scope = asked[next++]; scope !== undefined; scope = asked[next++]) {
      if ((await statusOfList(source, scope.identity, deadline.signal)) !== 403) continue;
      onForbidden(scope.identity);
      withheld++;
    }
  };
  await Promise.all(Array.from({ length: ASKED_AT_ONCE }, askOn));
  cancel();
  log.info("a permission was taken back, the caller's other lists were asked for", { asked: asked.length, withheld });
}

/** 200, the status of a refusal, or undefined: the link broke, and nothing was refused. */
export async function statusOfList(
  source: Pick<ScopeUpstream, "list">,
  identity: ScopeIdentity,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    const page = await source.list(identity, { limit: 1, continueToken: "" }, signal);
    for await (const _ of page.batches) break;
    return 200;
  } catch (error) {
    return error instanceof UpstreamRefusedError ? error.status : undefined;
  }
}

/** The same of a watch, which is given up as soon as it is answered; that the API server has forgotten where the copy stands is no refusal. */
export async function statusOfWatch(
  source: Pick<ScopeUpstream, "watch">,
  identity: ScopeIdentity,
  { resourceVersion, shape }: Pick<ListedState, "resourceVersion" | "shape">,
  signal: AbortSignal,
): Promise<number | undefined> {
  const answered = new AbortController();
  try {
    await source.watch(identity, { resourceVersion, shape }, 1, AbortSignal.any([signal, answered.signal]));
    return 200;
  } catch (error) {
    if (!(error instanceof UpstreamRefusedError)) return undefined;
    return error.status === 410 ? 200 : error.status;
  } finally {
    answered.abort();
  }
}
