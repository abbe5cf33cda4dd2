/**
 * What is wrong with this node, in words: cause and next command.
 *
 * One registry for everybody: whoever sees a trouble raises it here, `status`,
 * `/readyz?verbose` and the metrics read it. Two ways in:
 *
 *   raise / clear   for what happens: a refused credential, a foreign answer
 *   watch           for what can be read off at any time: a certificate's end
 *
 * A condition stands since it was first seen; saying it again changes its
 * words, not its time. Each kind is in the table below, so that no name of the
 * outside world becomes a series or a row: bounded by construction.
 */

import type { Clock } from "./clock.ts";

/** Every kind of condition and what it means; the order is that of urgency. */
export const CONDITION_TYPES = {
  IdentityCopied: "two devices have this node's identity; the second is kept out",
  CredentialRefused: "the API server answers our own credential with 401",
  CredentialUnusable: "a credential's files cannot be read, or do not fit together",
  AuthorityMismatch: "the API server's certificate is not signed by the CA that is configured",
  ForeignAnswer: "something else answers for the API server: a proxy, a portal, a firewall",
  WrongCluster: "the state folder belongs to another cluster",
  StoreInMemory: "the state folder cannot be written",
  SealingKeyUnusable: "the sealing credential that is given cannot be used",
  SealingKeyInMemory: "the sealing key dies with the process",
  DataQuarantined: "damaged rows or files were set aside",
  CertificateExpiring: "a certificate has ended or ends soon",
  CertificateNotRenewed: "the node's certificate is due, and its request is denied, refused or waits",
  ClockBehind: "the clock shows a time that has been already",
  FileUnusable: "a followed file has new content that cannot be used; the former stands",
  StorageFrozen: "the API server answers, its storage does not",
  TunnelDown: "no gateway takes the node's tunnel in: kubectl logs and exec do not reach its pods",
  ScopePassedThrough: "a list is too large to be kept",
  QuotaReached: "the store's quota makes copies give way",
  NodeNotRestored: "the node reads at its place in the tunnel, not as its kubelet wrote it",
  PlaceContested: "the addresses under which the node is shown do not stay",
  PodsCannotReach: "pods that were started here are told an address that does not lead to us",
  AgentWritesDropped: "writes of node agents made while cut could not go up",
} as const;

/** One of them. */
export type ConditionType = keyof typeof CONDITION_TYPES;

/** What is found: for people, and never a token, a key or a body. */
export interface Finding {
  /** One word in CamelCase, as Kubernetes' conditions have. */
  readonly reason: string;
  /** What is so, and what it means for the node. */
  readonly message: string;
  /** The next command or step; "" where there is none. */
  readonly next?: string;
}

/** A finding that stands. */
export interface Condition extends Finding {
  readonly type: ConditionType;
  /** Which of several it is about: "upstream", a file, a client; "" where there is one alone. */
  readonly subject: string;
  /** Since when, ms since the epoch by the clock as it is set now. */
  readonly sinceMs: number;
}

/** Several subjects of one kind are told apart up to here; the rest are not told of. */
const MAX_SUBJECTS = 8;
const MAX_TEXT = 512;

interface Standing extends Finding {
  readonly subject: string;
  readonly sinceMonotonicMs: number;
}

/** The registry. */
export class Conditions {
  readonly #raised = new Map<ConditionType, Map<string, Standing>>();
  readonly #watched: { type: ConditionType; subject: string; look: () => Finding | undefined }[] = [];

  constructor(private readonly clock: Clock) {}

  /** Says that something is wrong; once more only brings its words up to date. */
  raise(type: ConditionType, finding: Finding, subject = ""): void {
    const standing = this.#raised.get(type) ?? new Map<string, Standing>();
    const known = standing.get(subject);
    if (known === undefined && standing.size >= MAX_SUBJECTS) return;
    const sinceMonotonicMs = known?.sinceMonotonicMs ?? this.clock.monotonicMs();
    const { reason, message, next = "" } = finding;
    standing.set(subject, { subject, sinceMonotonicMs, reason, message: message.slice(0, MAX_TEXT), next });
    this.#raised.set(type, standing);
  }

  /** Says that it is well again. */
  clear(type: ConditionType, subject = ""): void {
    this.#raised.get(type)?.delete(subject);
  }

  /** Hands in a look at something that is judged whenever conditions are read; a look that throws finds nothing. */
  watch(type: ConditionType, look: () => Finding | undefined, subject = ""): void {
    this.#watched.push({ type, subject, look });
  }

  /** Whether any of a kind stands. */
  stands(type: ConditionType): boolean {
    return this.all().some((condition) => condition.type === type);
  }

  /** All that stand now, the most urgent first. */
  all(): Condition[] {
    for (const { type, subject, look } of this.#watched) this.#look(type, subject, look);
    const bootMs = this.clock.nowMs() - this.clock.monotonicMs();
    return (Object.keys(CONDITION_TYPES) as ConditionType[]).flatMap((type) =>
      [...(this.#raised.get(type)?.values() ?? [])].map(({ sinceMonotonicMs, ...finding }) => ({
        type,
        ...finding,
        sinceMs: bootMs + sinceMonotonicMs,
      })),
    );
  }

  #look(type: ConditionType, subject: string, look: () => Finding | undefined): void {
    let finding: Finding | undefined;
    try {
      finding = look();
    } catch {
      finding = undefined;
    }
    if (finding === undefined) this.clear(type, subject);
    else this.raise(type, finding, subject);
  }
}
