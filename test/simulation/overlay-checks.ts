/**
 * The promises where kubelet writes while nobody can be told.
 *
 * A reader of an edited scope is shown what no API server said; it must still
 * be exactly the cloud's row with what kubelet wrote laid over it, for pods of
 * what it asked for, in an order in which nothing goes back, and only until
 * the cloud has spoken. Everything else is held against the truth as elsewhere.
 */

import type { ScopeIdentity } from "../../src/store/contract.ts";
import { isSelected, keyOf, type Version } from "./api-server.ts";
import { Checks, WatchCheck, nameOf, type WatchCheckOptions } from "./checks.ts";
import type { ReadList, ReadObject } from "./node-process.ts";

/** Above it a resourceVersion is Holdfast's own. */
export const LOCAL = 5e15;

/** What kubelet says of a pod or its node. */
export interface Said {
  readonly phase: string;
  readonly ip: string;
  readonly isReady: boolean;
  /** Grows with every write. */
  readonly mark: number;
}

/** What kubelet wrote of one UID while cut. */
export interface Told {
  /** Everything it ever said of it, by mark. */
  readonly said: Map<number, Said>;
  /** What a reader must find while cut; undefined once the cloud has spoken. */
  standing: Said | undefined;
  /** When that was answered, as `nextOrder` counts: a read that was asked for before need not show it. */
  standingSince: number;
  /** What finished it: kept over crashes and returns until the cloud knows, so that a write which repeats it may be lost. */
  remembered: Said | undefined;
  /** Whether a crash came before a write that says nothing new had to be on disk: an older mark with the same words is as good. */
  isInWords: boolean;
  /** A finished pod stays finished. */
  isFinished: boolean;
}

/** As the status reads. */
interface Status {
  readonly phase?: string;
  readonly podIP?: string;
  readonly mark?: number;
  readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[];
}

/** What an agent wrote of one UID while cut. */
export interface Noted {
  /** Every note it wrote here; no two are alike. */
  readonly said: Set<string>;
  /** What a reader must find while cut; undefined once the cloud has spoken. */
  standing: string | undefined;
  standingSince: number;
}

/** Checks that know of overlays. */
export class OverlayChecks extends Checks {
  readonly records = new Map<string, Told>();
  readonly notes = new Map<string, Noted>();
  /** Whether the link is lost, as Holdfast sees it. */
  isCut: () => boolean = () => false;
  /** Whether the return has been complete for a while. */
  isReturned: () => boolean = () => false;

  override listed(identity: ScopeIdentity, list: ReadList, asked: string, what = "list"): void {
    for (const item of list.items) this.item(identity, item, what, true);
    if (list.revision < LOCAL) return super.listed(identity, list, asked, what);
    this.served(identity, what);
    if (this.isReturned()) this.fail("P2", `${what} of ${nameOf(identity)} is edited after the return`);
    if (asked !== "" && list.revision < Number(asked))
      this.fail("P2", `${what} of ${nameOf(identity)} at ${list.revision}, asked for not older than ${asked}`);
  }

  override event(identity: ScopeIdentity, type: string, item: ReadObject): void {
    if (type !== "DELETED") this.item(identity, item, type, false);
    if (item.revision < LOCAL) super.event(identity, type, item);
  }

  override got(identity: ScopeIdentity, item: ReadObject): void {
    this.item(identity, item, "GET", true);
    if (item.revision < LOCAL) super.got(identity, item);
  }

  /** An item as it is read. @param isNow it is read now, and not an event that may have waited. */
  item(identity: ScopeIdentity, item: ReadObject, what: string, isNow: boolean): void {
    const row = this.server.versionOf(item.value);
    const name = `${what} of ${nameOf(identity)}: ${keyOf(item)}@${item.revision}`;
    if (row === undefined || row.uid !== item.uid) return this.fail("P1", `${name} was never written`);
    if (!this.server.wasReturned(identity.principal, item.uid, item.value))
      this.fail("P1", `${name} was never returned to ${identity.principal}`);
    if (!isSelected({ ...identity, resource: row.resource }, row)) this.fail("P1", `${name} is a neighbour`);
    const record = this.records.get(item.uid);
    const isOwed = isNow && (record?.standingSince ?? 0) <= (item.asked ?? Number.POSITIVE_INFINITY);
    const isStatus = row.resource === "pods" || row.resource === "nodes";
    this.#noted(row, item, name, isNow);
    if (item.revision < LOCAL) {
      if (item.body !== bodyOf(row) || item.note !== row.note)
        this.fail("P1", `${name} is edited under the cloud's resourceVersion`);
      if (isOwed && isStatus && this.isCut() && !isShown(record, JSON.parse(item.body) as Status))
        this.fail("P2", `${name} does not show what kubelet wrote`);
    } else {
      if (this.isReturned()) this.fail("P2", `${name} is edited after the return`);
      if (isStatus) this.#edited(row, item, record, name, isOwed);
    }
    // Another's copy may be older than the cloud's word that it has finished; kubelet's own decides.
    const isKubelets = identity.principal.startsWith("certificate:");
    if (isOwed && isKubelets && row.resource === "pods" && this.isCut() && record?.isFinished === true)
      if (!isTerminal((JSON.parse(item.body) as Status).phase)) this.fail("P2", `${name}: a finished pod runs again`);
  }

  /** Whether the endpoints are those of the pods as kubelet knows them. */
  endpoints(identity: ScopeIdentity, item: ReadObject): void {
    for (const { addresses, conditions, targetRef } of JSON.parse(item.body) as Endpoint[]) {
      const said = this.records.get(targetRef.uid)?.standing;
      if (said === undefined) continue;
      if (said.ip !== "" && addresses[0] !== said.ip)
        this.fail("P2", `${nameOf(identity)}: ${targetRef.uid} at ${addresses[0]}, kubelet said ${said.ip}`);
      const isReady = said.isReady && !isTerminal(said.phase);
      if (conditions.ready !== isReady)
        this.fail("P2", `${nameOf(identity)}: ${targetRef.uid} ready ${conditions.ready}, kubelet said ${isReady}`);
    }
  }

  override watch(identity: ScopeIdentity, options: WatchCheckOptions): WatchCheck {
    return new OverlayWatchCheck(this, identity, options);
  }

  /** An agent's note is the row's, or one that it wrote here; while cut the last one. */
  #noted(row: Version, { uid, note, asked }: ReadObject, name: string, isNow: boolean): void {
    const noted = this.notes.get(uid);
    if (note !== row.note && noted?.said.has(note) !== true)
      this.fail("P1", `${name} shows the note "${note}", which nobody wrote`);
    const isOwed = isNow && this.isCut() && (noted?.standingSince ?? 0) <= (asked ?? Number.POSITIVE_INFINITY);
    if (isOwed && noted?.standing !== undefined && note !== noted.standing)
      this.fail("P2", `${name} shows the note "${note}", the agent wrote "${noted.standing}"`);
  }

  #edited(row: Version, item: ReadObject, record: Told | undefined, name: string, isOwed: boolean): void {
    const status = JSON.parse(item.body) as Status;
    const cloud = JSON.parse(bodyOf(row)) as Status;
    const isLess = isOwed && this.isCut() && !isShown(record, status);
    if (item.body === bodyOf(row) && !isLess) return;
    const said = record?.said.get(status.mark ?? -1);
    if (said === undefined || record === undefined)
      return this.fail("P1", `${name}: kubelet never said mark ${status.mark}`);
    const ready = status.conditions?.find(({ type }) => type === "Ready")?.status;
    if (status.phase !== said.phase || status.podIP !== said.ip || ready !== (said.isReady ? "True" : "False"))
      this.fail("P1", `${name} shows ${item.body}, kubelet said ${JSON.stringify(said)}`);
    const message = (of: Status) => of.conditions?.find(({ type }) => type === "Cloud")?.message;
    // The cloud's own condition stays as it was when kubelet wrote.
    if (message(status) === undefined || message(cloud) === undefined)
      this.fail("P1", `${name} lost what the cloud says beside kubelet`);
    if (isLess) this.fail("P2", `${name} shows mark ${said.mark}, kubelet wrote ${record.standing?.mark}`);
  }
}

/** Whether a status has what kubelet last wrote; after a crash an earlier mark that says the same will do. */
function isShown(told: Told | undefined, { mark, phase, podIP, conditions }: Status): boolean {
  if (told?.standing === undefined || mark === told.standing.mark) return true;
  const { standing, isInWords } = told;
  const isReady = conditions?.find(({ type }) => type === "Ready")?.status === "True";
  return isInWords && phase === standing.phase && (podIP ?? "") === standing.ip && isReady === standing.isReady;
}

interface Endpoint {
  readonly addresses: readonly string[];
  readonly conditions: { readonly ready: boolean };
  readonly targetRef: { readonly uid: string };
}

/** One watch that may be told of edits. */
class OverlayWatchCheck extends WatchCheck {
  #hasEdits: boolean;
  #newest: number;

  constructor(
    private readonly all: OverlayChecks,
    private readonly of: ScopeIdentity,
    private readonly how: WatchCheckOptions,
  ) {
    super(all, of, how);
    this.#newest = how.startAt ?? 0;
    this.#hasEdits = this.#newest >= LOCAL;
    for (const { revision } of how.belief.values())
      if (how.startAt !== undefined && revision >= LOCAL) this.#hasEdits = true;
  }

  override event(type: "ADDED" | "MODIFIED" | "DELETED", item: ReadObject): void {
    if (item.revision >= LOCAL) this.#hasEdits = true;
    if (!this.#hasEdits) return super.event(type, item);
    const { all, of, how } = this;
    all.event(of, type, item);
    if (how.startAt === undefined && this.#newest === 0) return;
    const what = `${type} ${keyOf(item)}@${item.revision} to an edited watch of ${nameOf(of)}`;
    const known = how.belief.get(keyOf(item));
    if ((type === "ADDED") !== (known === undefined) || (type !== "ADDED" && known?.uid !== item.uid))
      return all.fail("P2", `${what}: what was known of that name is ${known?.uid}@${known?.revision}`);
    if (known === undefined || type === "DELETED") return;
    if (known.revision >= LOCAL && item.revision >= LOCAL && item.revision <= known.revision)
      return all.fail("P2", `${what}: it was at ${known.revision} already`);
    if (rowOf(item) < rowOf(known)) all.fail("P2", `${what}: its row was at ${rowOf(known)} already`);
  }

  override initial(list: ReadList, asked: string): void {
    this.#newest = list.revision;
    if (list.revision >= LOCAL) {
      this.#hasEdits = true;
      return this.all.listed(this.of, list, asked, "initial events");
    }
    super.initial(list, asked);
  }

  override bookmark(revision: number): void {
    if (!this.#hasEdits) return super.bookmark(revision);
    if (revision >= LOCAL && revision < this.#newest)
      this.all.fail("P2", `bookmark at ${revision} to a watch that was at ${this.#newest}`);
  }

  override ended(code: number | undefined): void {
    // The edits it was told of end with 410, so that it takes the cloud's truth.
    if (code === 410 && this.#hasEdits) return this.gone();
    super.ended(code);
  }
}

/** A status, or endpoints, as the API server has it. */
export function bodyOf({ extra }: Version): string {
  const { status, endpoints } = JSON.parse(`{${extra}}`) as { readonly status?: object; readonly endpoints?: object };
  return JSON.stringify(status ?? endpoints) ?? "";
}

/** Whether a phase is a pod's last. */
export function isTerminal(phase: string | undefined): boolean {
  return phase === "Succeeded" || phase === "Failed";
}

function rowOf({ value }: ReadObject): number {
  return Number(value.slice(value.indexOf(".") + 1));
}
