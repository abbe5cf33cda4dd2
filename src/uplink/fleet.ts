/**
 * When one node of many comes back.
 *
 * Ten thousand nodes that lost their API server find it again within the same
 * second, and each has some twenty requests to make: what it missed, watch by
 * watch. So a node of a large fleet comes back in its turn. Until then it goes
 * on as while cut, but for its lease, which goes up from the first contact on:
 * the control plane counts no node for lost that only waits.
 *
 *   offline --(first contact)--> held, leases go up --(its turn)--> online
 *
 * The turn is drawn anew for each cut, evenly from a span that is as long as
 * those who come back need if together they may ask for no more than what the
 * whole fleet asks for in quiet times anyway. A span below what matters (few
 * nodes, one alone) is none: such a node is back at once.
 *
 * How large the fleet is says the configuration alone (`fleetSize`): a guess
 * from the cluster's writes takes a busy cluster of three nodes for a fleet,
 * and lets them wait for nobody.
 *
 * Who else was cut says the lease: each renewal's answer carries the cluster's
 * newest resourceVersion, which grows by one for each write of anybody. Had all
 * others gone on, it would have grown as before; what it has not grown is the
 * part of the fleet that was away. A node whose cut was its own affair waits
 * for nobody. It is a hint about when, never about what: nothing is concluded
 * from it but how long to wait, five minutes at most.
 */

import type { Clock } from "../base/clock.ts";

/** What a fleet's member knows beside its lease. */
export interface FleetParts {
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  /** Nodes on this control plane, as configured; undefined when nobody has said, which is as good as one. */
  readonly size: number | undefined;
  /** The cluster's newest resourceVersion, in one small request; undefined when nobody says. */
  readonly askNewest: (signal: AbortSignal) => Promise<string | undefined>;
}

/** When the link asks, and when it is back; what it sees of a fleet. */
export interface Turns {
  /** How long until the next look for a lost API server. */
  nextProbeMs(): number;
  /** The link is lost. */
  lost(): void;
  /** The API server was heard again; resolves when it is known who else was away, as far as it can be. */
  contact(signal: AbortSignal): Promise<void>;
  /** The API server asked to be left alone for this long (429 with Retry-After). */
  askedToWait(ms: number): void;
  /** How long after the first contact this node's turn comes; may grow shorter as more is known. */
  turnAfterMs(): number;
  /** The link is back. */
  back(): void;
}

/** Kubelet's, by default. */
const LEASE_EVERY_S = 10;
/** Most collections' watches are asked to last this long; see `cache/watch-length.ts`. */
const WATCH_LASTS_S = 480;
/** Beside the watches: contact, own node, the confirming look, a status or two that kubelet sends again. */
const OTHER_REQUESTS = 6;
/** So many requests a second no API server notices, however small its fleet. */
const UNNOTICED_PER_S = 500;
/** Of what the fleet asks for in quiet times: the returning must share the second half with what goes on. */
const SHARE = 0.7;
const MOST_MS = 300_000;
/** Looks for a lost API server, of all nodes together: each is a TLS handshake. */
const PROBES_PER_S = 600;
const PROBE_MS = { least: 1_000, most: 20_000 } as const;
/** Guesses of who was away are this coarse; so few come back unnoticed within the time of the first looks. */
const FEW = 0.12;
/** Renewals that are remembered: ten minutes of them. */
const REMEMBERED = 60;
const LEAST_SPAN_MS = 60_000;
/** A shorter span is none. */
const LEAST_TURN_SPAN_MS = 1_000;
/** As it was asked, but not longer. */
const MOST_ASKED_MS = 60_000;
/** A jump that no cluster makes in ten seconds means that the numbers are not what we take them for. */
const MOST_WRITES_PER_S = 1e6;

interface Moment {
  readonly atMs: number;
  readonly revision: number;
}

/** This node's place among those that come back. */
export class Fleet implements Turns {
  /** While the link stood, oldest first. */
  #seen: Moment[] = [];
  #draw = 0;
  #isCut = false;
  /** What was seen before the cut is to be joined to what comes. */
  #isJoining = false;
  #askedMs = 0;
  /** Part of the fleet that was away; undefined, as good as all of it, until the first answer says. */
  #away: number | undefined;
  /** Watches that are taken up at the return. */
  #watches: () => number = () => 0;

  constructor(private readonly parts: FleetParts) {}

  /** Who counts what is taken up again. */
  counts(watches: () => number): void {
    this.#watches = watches;
  }

  /** The API server answered a renewal of the lease. @param resourceVersion of the lease as it stands now. */
  renewed(resourceVersion: string): void {
    const revision = Number(resourceVersion);
    if (!Number.isFinite(revision) || revision <= 0) return;
    const now = { atMs: this.parts.clock.monotonicMs(), revision };
    if (this.#isCut) return this.#compare(now);
    if (this.#isJoining) return this.#join(now);
    const last = this.#seen.at(-1);
    const most = last === undefined ? Infinity : last.revision + (MOST_WRITES_PER_S * (now.atMs - last.atMs)) / 1_000;
    if (last !== undefined && (revision < last.revision || revision > most)) this.#seen = [];
    this.#seen.push(now);
    if (this.#seen.length > REMEMBERED) this.#seen.shift();
  }

  /** Nodes on this control plane. */
  get size(): number {
    return this.parts.size ?? 1;
  }

  nextProbeMs(): number {
    const everyMs = this.#everyMs;
    // Who has lost it in the same moment must not look in the same moment.
    return everyMs === PROBE_MS.least ? everyMs : everyMs * (0.5 + this.parts.random());
  }

  get #everyMs(): number {
    return Math.min(PROBE_MS.most, Math.max(PROBE_MS.least, (this.size / PROBES_PER_S) * 1_000));
  }

  lost(): void {
    this.#isCut = true;
    this.#away = undefined;
    this.#askedMs = 0;
    this.#draw = this.parts.random();
  }

  async contact(signal: AbortSignal): Promise<void> {
    if (this.turnAfterMs() === 0) return;
    const newest = await this.parts.askNewest(signal);
    if (newest !== undefined) this.renewed(newest);
  }

  askedToWait(ms: number): void {
    // All of them were told the same.
    this.#askedMs = Math.min(MOST_ASKED_MS, ms) * (1 + this.parts.random());
  }

  back(): void {
    this.#isJoining = this.#isCut;
    this.#isCut = false;
  }

  turnAfterMs(): number {
    const spanMs = this.#spanMs();
    // Those who look are heard first: who has looked early does not come back among them.
    return Math.max(this.#askedMs, spanMs === 0 ? 0 : this.#everyMs + this.#draw * spanMs);
  }

  #spanMs(): number {
    const away = this.#away ?? 1;
    if (away <= FEW) return 0;
    const watches = this.#watches();
    const { size } = this;
    const usualPerS = size * (1 / LEASE_EVERY_S + watches / WATCH_LASTS_S);
    const perS = Math.max(UNNOTICED_PER_S, SHARE * usualPerS);
    const spanMs = ((size * away * (watches + OTHER_REQUESTS)) / perS) * 1_000;
    return spanMs < LEAST_TURN_SPAN_MS ? 0 : Math.min(MOST_MS, spanMs);
  }

  /** How far history went on without us, against how far it would have gone with all; later it is moved on by those who came back. */
  #compare(now: Moment): void {
    if (this.#away !== undefined) return;
    const last = this.#seen.at(-1);
    const perS = this.#writesPerSecond();
    if (last === undefined || perS === undefined || now.revision < last.revision) return;
    const usual = (perS * (now.atMs - last.atMs)) / 1_000;
    this.#away = Math.min(1, Math.max(0, 1 - (now.revision - last.revision) / usual));
  }

  /** As if the cut had not been: what the fleet wrote before it, it will write again. */
  #join(now: Moment): void {
    this.#isJoining = false;
    const last = this.#seen.at(-1);
    if (last === undefined) return void this.#seen.push(now);
    const [byMs, by] = [now.atMs - last.atMs, now.revision - last.revision];
    this.#seen = this.#seen.map(({ atMs, revision }) => ({ atMs: atMs + byMs, revision: revision + by }));
  }

  #writesPerSecond(): number | undefined {
    const [first] = this.#seen;
    const last = this.#seen.at(-1);
    if (first === undefined || last!.atMs - first.atMs < LEAST_SPAN_MS) return undefined;
    return Math.max(0.01, ((last!.revision - first.revision) / (last!.atMs - first.atMs)) * 1_000);
  }
}
