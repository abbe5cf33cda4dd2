/**
 * Who becomes a principal: a caller to whom the API server has said yes.
 *
 *   stranger   a token of which nothing is known. Its requests go up with it; no
 *              scope, row, recording, credential or verdict of it stays
 *   admitted   the API server has answered a request of it with what was asked
 *              for, now or in a former life: then something is kept under its
 *              name, which is the keyed hash of that very token
 *   vouched    our own credential, a configured client, a service account whose
 *              token is proven: admitted from the first request on
 *
 * So made-up tokens cost nothing that lasts, push nobody out, and write no
 * line, however many there are. The yes need not be asked for: the answer to
 * the first request is it, and is learned from like every later one.
 *
 * The same place keeps what takes a caller's word away: a token that was
 * refused (401) counts no longer while cut, also after a restart.
 */

import { type AskedBetween } from "../base/asked.ts";
import type { Caller, Identifier, Presented } from "./identify.ts";
import type { RefusedTokens } from "./refused-tokens.ts";
import type { ServiceAccounts } from "./service-accounts.ts";
import type { ScopeUpstream } from "../uplink/scope-upstream.ts";

/** What the gate is made of. */
export interface GateParts {
  readonly identifier: Identifier;
  readonly serviceAccounts: ServiceAccounts;
  readonly refusedTokens: RefusedTokens;
  readonly sources: Pick<ScopeUpstream, "remember" | "lend" | "forget">;
  /** Told of every yes to an answer of this caller. */
  readonly onAccepted: (principal: string, asked: AskedBetween) => void;
  /** Principals of whom something is kept from before this start. */
  readonly known: Iterable<string>;
}

/** A caller, and whether the API server has yet to say yes to it. */
export type Entered = Caller & { readonly isStranger: boolean };

const MAX_PRINCIPALS = 4_096;

/** Lets callers in. */
export class Gate {
  /** Admitted ones, the one that spoke last at the end. */
  readonly #admitted: Set<string>;
  readonly #entered = new WeakMap<Caller, Entered>();

  constructor(private readonly parts: GateParts) {
    this.#admitted = new Set(parts.known);
  }

  /**
   * Who asks.
   *
   * @throws {StatusError} 401, 403, 400 as identification says.
   */
  enter(presented: Presented): Entered | Promise<Entered> {
    const { identifier, serviceAccounts } = this.parts;
    const bearer = identifier.bearerOf(presented);
    // A pod's new token is looked at before it counts.
    if (bearer !== undefined && !serviceAccounts.isSettled(bearer.token, bearer.credential))
      return serviceAccounts.settle(bearer.token, bearer.credential).then(() => this.#identified(presented));
    return this.#identified(presented);
  }

  #identified(presented: Presented): Entered {
    const { identifier, sources } = this.parts;
    const caller = identifier.identify(presented);
    const known = this.#entered.get(caller);
    if (known !== undefined) {
      sources.remember(known.principal, known.credential);
      return known;
    }
    const isStranger = !caller.isVouched && !this.#admitted.has(caller.principal);
    const entered = { ...caller, isStranger };
    if (!isStranger && !caller.isImpersonating) {
      sources.remember(caller.principal, caller.credential);
      // The holder of a certificate is the same for all requests of a connection.
      if (caller.isVouched) this.#entered.set(caller, entered);
    }
    return entered;
  }

  /** The API server has answered this caller with what it asked for. @param asked when. */
  accepted(caller: Caller, asked: AskedBetween): void {
    const { identifier, refusedTokens, sources } = this.parts;
    if (!refusedTokens.delete(caller.credential.id, asked)) return;
    if (!caller.isImpersonating) this.parts.onAccepted(caller.principal, asked);
    if (caller.isVouched || caller.isImpersonating) return;
    this.#admitted.delete(caller.principal);
    if (this.#admitted.size >= MAX_PRINCIPALS) this.#admitted.delete(this.#admitted.values().next().value!);
    this.#admitted.add(caller.principal);
    identifier.keep(caller.credential);
    sources.remember(caller.principal, caller.credential);
  }

  /** A stranger's credential for the scope it asks for, until the returned function is called; it stays if the API server accepts it meanwhile. Undefined when too many are under way. */
  lend(caller: Entered): (() => void) | undefined {
    return caller.isStranger
      ? this.parts.sources.lend(caller.principal, caller.credential, (asked) => this.accepted(caller, asked))
      : () => {};
  }

  /**
   * The API server has answered this caller with 401.
   *
   * @returns whether what is kept under its principal goes on: nothing is, or another token speaks for it.
   */
  async refused(caller: Entered): Promise<boolean> {
    const { refusedTokens, serviceAccounts, sources } = this.parts;
    const { credential, isStranger, principal } = caller;
    if (isStranger) {
      await serviceAccounts.strangerRefused(credential);
      return true;
    }
    refusedTokens.add(credential.id);
    sources.forget(principal, credential.id);
    return serviceAccounts.refused(credential);
  }
}
