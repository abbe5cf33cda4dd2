/**
 * What this node said of its pods and itself while nobody could be told.
 *
 * A status that cannot go up is laid over the kept object, so that later
 * reads, lists and open watches show it, and kubelet finds after a restart
 * what it said before. Of kubelet's nothing is queued: at the return the
 * cloud's truth is handed down in its place and kubelet, which is
 * level-triggered, sends again what differs. Only a terminal phase stays
 * remembered until the cloud knows it too: a finished Job must not run again
 * because the link broke twice. What an agent of the node changed stays until
 * it went up or is void (`agent-return.ts`).
 *
 * An overlay is laid on whatever row of the same UID a scope holds. On disk:
 * at once where a reboot would miss it (a first status, a phase, an address, an
 * agent's change), within half a minute otherwise, a node's heartbeats within
 * ten minutes.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { parseExact, writeExact } from "../kube/exact-json.ts";
import { StatusError, unavailable } from "../kube/status-error.ts";
import type { Store } from "../store/contract.ts";
import { LocalVersions } from "../cache/edits.ts";
import { EndpointEdits, type LocalPod } from "./endpoint-edits.ts";
import type { Scope } from "../cache/scope.ts";
import type { FoundObject, Scopes } from "../cache/scopes.ts";
import {
  keyOf,
  laidOver,
  laidOverBytes,
  metadataChanges,
  overlayBytes,
  readOverlay,
  shown,
  valueOf,
  type Change,
  type Overlay,
} from "./overlay.ts";
import { addressesOf, differsInWords, isReady, isTerminal, type Fields } from "./pod-status.ts";
import { patchedStatus, type Patch, type StatusTarget } from "./status-patch.ts";

interface OverlayParts {
  readonly store: Store;
  readonly scopes: Scopes;
  readonly clock: Clock;
  readonly log: Log;
  /** Whether a copy is cut off though it is asked for: storage is silent, our own credential is refused, nobody has been reached yet. Default: none is. */
  readonly isCutOff?: (scope: Scope) => boolean;
}

/** Changes of one object that go up together. */
export interface WaitingChanges extends StatusTarget {
  readonly uid: string;
  readonly principal: string;
  readonly verb: Change["verb"];
  readonly subresource: Change["subresource"];
  readonly changes: readonly Change[];
}

const VALUE_PREFIX = "overlay/";
/** Values of one key that an agent wrote before and that may have gone up. */
const MAX_EARLIER = 4;
/** All that agents may have changed at once. */
const MAX_CHANGES_BYTES = 4 * 1024 * 1024;
const SAVE_AFTER_MS = { pods: 30_000, nodes: 600_000 } as const;

/** All overlays of this node. */
export class Overlays {
  #overlays = new Map<string, Overlay>();
  /** The resourceVersion under which each was last laid; none while the cloud's truth is shown. */
  #laidAt = new Map<string, string>();
  #unsaved = new Set<string>();
  #cancelSave: (() => void) | undefined;
  #saveAtMs = 0;
  readonly #versions: LocalVersions;
  readonly #endpoints: EndpointEdits;

  constructor(private readonly parts: OverlayParts) {
    this.#versions = new LocalVersions(parts.store);
    const mayLay = (scope: Scope) => this.#mayLay(scope);
    this.#endpoints = new EndpointEdits({
      ...parts,
      versions: this.#versions,
      pods: () => this.#localPods(),
      mayLay,
    });
  }

  /** How many objects are overlaid. */
  get size(): number {
    return this.#overlays.size;
  }

  /** Reads what was kept and lays it over the scopes. */
  start(): void {
    for (const name of this.parts.store.valueNames(VALUE_PREFIX)) {
      try {
        const overlay = readOverlay(this.parts.store.getValue(name));
        this.#overlays.set(keyOf(overlay), overlay);
      } catch (error) {
        this.parts.log.warn("overlay dropped", { name, error: String(error) });
        this.parts.store.deleteValue(name);
      }
    }
    this.layAgain();
  }

  /** Lays everything over the scopes anew: the link is lost again before its return was complete, or Holdfast has started. */
  layAgain(): void {
    for (const overlay of this.#overlays.values()) this.#lay(overlay);
    this.#endpoints.changed();
  }

  /**
   * Applies kubelet's PATCH of a status.
   *
   * @param principal whose copy is patched and answered with.
   * @returns the object as it now reads.
   * @throws {StatusError} as `patchedStatus`, and 503 when the object is not kept.
   */
  patchStatus(principal: string, target: StatusTarget, patch: Patch): FoundObject {
    const found = this.#find(principal, target);
    const row = found?.scope.row(target.namespace, target.name);
    if (found === undefined || row === undefined)
      throw unavailable(
        `Cannot patch the status of ${target.resource} "${target.name}": the API server cannot be reached and the object is not kept here`,
      );
    const known = this.#of(target, row);
    // Agents' changes lie over kubelet's: they are no part of what it says.
    const before = shown(parse(row), { ...known, changes: [] });
    const held = parse(found.item)["metadata"] as Fields;
    const after = patchedStatus(before, held, patch, target);
    if (Bun.deepEquals(before, after)) return found;
    const status = after["status"] as Fields;
    const metadata = metadataChanges(known.metadata, before["metadata"] as Fields, after["metadata"] as Fields);
    const isUrgent = target.resource === "pods" && this.#saysNews(known, status);
    const { isRemembered: _, ...others } = known;
    this.#put({ ...others, status, metadata }, isUrgent ? 0 : SAVE_AFTER_MS[target.resource]);
    if (target.resource === "pods") this.#endpoints.changed();
    return this.#find(principal, target) ?? found;
  }

  /**
   * Lays an agent's changes over an object of the node.
   *
   * @param found the object in the node's own copy.
   * @param given as its writer was shown it, where that is another text: its own last write may be newer than the copy.
   * @throws {StatusError} 413 when agents have changed more than is kept.
   */
  change({ scope }: FoundObject, target: StatusTarget, wanted: readonly Omit<Change, "was">[], given?: Fields): void {
    const row = scope.row(target.namespace, target.name);
    if (row === undefined || wanted.length === 0) return;
    const known = this.#of(target, row);
    const changes = changed(known.changes, given === undefined ? [parse(row)] : [parse(row), given], wanted);
    if (sizeOf(changes) + this.#changesBytes(keyOf(target)) > MAX_CHANGES_BYTES)
      throw new StatusError({
        code: 413,
        reason: "RequestEntityTooLarge",
        message: `Cannot change ${target.resource} "${target.name}": agents of this node have changed more than is kept while the API server cannot be reached`,
      });
    const overlay = { ...known, changes };
    this.#lay(overlay);
    this.#replace(keyOf(target), overlay);
  }

  /** What agents changed and has not gone up: of each object, caller, verb and subresource together. */
  get waiting(): readonly WaitingChanges[] {
    const groups = new Map<string, WaitingChanges & { changes: Change[] }>();
    for (const [key, { changes, resource, namespace, name, uid }] of this.#overlays)
      for (const change of changes) {
        const { principal, verb, subresource } = change;
        const groupKey = JSON.stringify([key, principal, verb, subresource]);
        const group = groups.get(groupKey);
        if (group === undefined)
          groups.set(groupKey, { resource, namespace, name, uid, principal, verb, subresource, changes: [change] });
        else group.changes.push(change);
      }
    return [...groups.values()];
  }

  /** These have gone up, or are void. Those that were made anew meanwhile stay. */
  settled(target: StatusTarget, gone: readonly Change[]): void {
    const key = keyOf(target);
    const overlay = this.#overlays.get(key);
    if (overlay !== undefined)
      this.#replace(key, { ...overlay, changes: overlay.changes.filter((change) => !gone.includes(change)) });
  }

  /** The API server's row of an object, as the node's own copies hold it. */
  rowOf(principal: string, target: StatusTarget): Item | undefined {
    return this.#find(principal, target)?.scope.row(target.namespace, target.name);
  }

  /** An object's text that is no copy's row, with what lies over the object while cut. */
  over(target: StatusTarget, bytes: Uint8Array): Uint8Array {
    const key = keyOf(target);
    const overlay = this.#overlays.get(key);
    const version = this.#laidAt.get(key);
    if (overlay === undefined || version === undefined) return bytes;
    const { uid } = ((parseExact(bytes) as Fields)["metadata"] ?? {}) as Fields;
    return uid === overlay.uid ? laidOverBytes(bytes, overlay, version) : bytes;
  }

  /** The cloud's truth was handed down: kubelet's part of overlays ends, but for terminal phases that the cloud does not know yet. */
  returned(): void {
    this.#laidAt.clear();
    for (const scope of this.parts.scopes.all()) scope.endEdits();
    for (const [key, overlay] of this.#overlays) {
      const { status, metadata: _, isRemembered: __, ...others } = overlay;
      if (status === undefined) continue;
      if (isTerminal(status) && this.#isNews(overlay)) {
        this.#overlays.set(key, { ...overlay, isRemembered: true });
        this.#save(key, 0);
      } else this.#replace(key, others);
    }
    this.#endpoints.ended();
  }

  /** The link is there again, though nothing was handed down yet. */
  linkUp(): void {
    this.#versions.voidAll();
  }

  /** Whether a resourceVersion of an edited item is from before the link was last there. */
  isVoid(localVersion: string): boolean {
    return this.#versions.isVoid(localVersion);
  }

  /** A terminal phase that is remembered is dropped once the cloud knows it or the pod is gone; what was said in this cut stays. */
  settle(): void {
    for (const [key, overlay] of this.#overlays) {
      const { status: _, metadata: __, isRemembered, ...others } = overlay;
      if (isRemembered === true && !this.#isNews(overlay)) this.#replace(key, others);
    }
  }

  /** The node's object is another now, or gone: what was said of the old one is void. */
  forgetNode(): void {
    for (const [key, { resource }] of this.#overlays) if (resource === "nodes") this.#forget(key);
  }

  /** Writes what waits. */
  flush(): void {
    this.#cancelSave?.();
    this.#cancelSave = undefined;
    for (const key of this.#unsaved) {
      const overlay = this.#overlays.get(key);
      if (overlay !== undefined)
        this.parts.store.putValue(VALUE_PREFIX + key, overlayBytes(overlay), { isSecret: false });
    }
    this.#unsaved.clear();
  }

  #find(principal: string, { resource, namespace, name }: StatusTarget): FoundObject | undefined {
    return this.parts.scopes.findObject({ principal, group: "", version: "v1", resource, namespace, name }, [
      { format: "json", as: "object", asVersion: "" },
    ]);
  }

  /** What is known of an object; of another UID under its name nothing is. */
  #of(target: StatusTarget, row: Item): Overlay {
    const known = this.#overlays.get(keyOf(target));
    const { resource, namespace, name } = target;
    return known?.uid === row.meta.uid ? known : { resource, namespace, name, uid: row.meta.uid, changes: [] };
  }

  #put(overlay: Overlay, withinMs: number): void {
    const key = keyOf(overlay);
    this.#overlays.set(key, overlay);
    this.#lay(overlay);
    this.#save(key, withinMs);
  }

  /** What remains of an overlay; nothing is left of one without status and changes. */
  #replace(key: string, overlay: Overlay): void {
    if (overlay.status === undefined && overlay.changes.length === 0) return this.#forget(key);
    this.#overlays.set(key, overlay);
    this.#save(key, 0);
  }

  /** What is true of a live copy comes from the API server, and no return would take an edit off it; nor of one between two watches. */
  #mayLay(scope: Scope): boolean {
    if (this.parts.isCutOff?.(scope) === true) return true;
    return scope.state !== "live" && !(scope.isFollowing && scope.canAsk);
  }

  #lay(overlay: Overlay): void {
    const resourceVersion = this.#versions.next();
    this.#laidAt.set(keyOf(overlay), resourceVersion);
    for (const scope of this.parts.scopes.all()) {
      if (scope.identity.resource !== overlay.resource || !isPlainJson(scope) || !this.#mayLay(scope)) continue;
      const row = scope.row(overlay.namespace, overlay.name);
      if (row === undefined || row.meta.uid !== overlay.uid) continue;
      scope.edit([laidOver(row, overlay, resourceVersion)]);
    }
  }

  /** Whether some copy still shows the pod without its terminal phase: kubelet may read that one, whatever another's says. */
  #isNews(overlay: Overlay): boolean {
    return this.#rowsOf(overlay).some((row) => !isTerminal(parse(row)["status"] as Fields | undefined));
  }

  /** Whether a status says in words what a reboot would miss: what was said before, or what some copy's row says, is another. */
  #saysNews(known: Overlay, status: Fields): boolean {
    if (known.status !== undefined) return differsInWords(known.status, status);
    return this.#rowsOf(known).some((row) => differsInWords(parse(row)["status"] as Fields | undefined, status));
  }

  /** An object's row in each copy that shows overlays. */
  #rowsOf({ resource, namespace, name, uid }: Overlay): Item[] {
    const rows: Item[] = [];
    for (const scope of this.parts.scopes.all()) {
      if (scope.identity.resource !== resource || !isPlainJson(scope)) continue;
      const row = scope.row(namespace, name);
      if (row?.meta.uid === uid) rows.push(row);
    }
    return rows;
  }

  #localPods(): ReadonlyMap<string, LocalPod> {
    const pods = new Map<string, LocalPod>();
    for (const { resource, uid, status } of this.#overlays.values()) {
      if (resource === "pods" && status !== undefined)
        pods.set(uid, { uid, ips: addressesOf(status), isReady: isReady(status) });
    }
    return pods;
  }

  /** What agents' changes take up, but for one object's. */
  #changesBytes(except: string): number {
    let sum = 0;
    for (const [key, { changes }] of this.#overlays) if (key !== except) sum += sizeOf(changes);
    return sum;
  }

  #forget(key: string): void {
    this.#overlays.delete(key);
    this.#laidAt.delete(key);
    this.#unsaved.delete(key);
    this.parts.store.deleteValue(VALUE_PREFIX + key);
  }

  #save(key: string, withinMs: number): void {
    const { clock } = this.parts;
    this.#unsaved.add(key);
    const atMs = clock.monotonicMs() + withinMs;
    if (withinMs === 0) return this.flush();
    if (this.#cancelSave !== undefined && this.#saveAtMs <= atMs) return;
    this.#cancelSave?.();
    this.#saveAtMs = atMs;
    this.#cancelSave = clock.after(withinMs, () => this.flush());
  }
}

/** An agent's changes with those from before: one for each label, annotation or condition. */
function changed(
  before: readonly Change[],
  texts: readonly Fields[],
  wanted: readonly Omit<Change, "was">[],
): Change[] {
  let changes = [...before];
  for (const one of wanted) {
    const isOf = ({ field, key }: Change) => field === one.field && key === one.key;
    const known = changes.find(isOf);
    const [first, ...since] = known === undefined ? texts.map((text) => valueOf(text, one)) : [...known.was, known.now];
    const others = since.filter((value) => !Bun.deepEquals(value, first) && !Bun.deepEquals(value, one.now));
    const was = [first!, ...others.slice(-MAX_EARLIER)];
    changes = changes.filter((change) => !isOf(change));
    if (was.length > 1 || !Bun.deepEquals(first, one.now)) changes.push({ ...one, was });
  }
  return changes;
}

function sizeOf(changes: readonly Change[]): number {
  return changes.length === 0 ? 0 : writeExact(changes).length;
}

function isPlainJson({ identity, listed }: Scope): boolean {
  return (
    identity.group === "" &&
    listed?.contentType === "application/json" &&
    (listed.shape.listKind === "PodList" || listed.shape.listKind === "NodeList")
  );
}

function parse({ bytes }: Item): Fields {
  return parseExact(bytes) as Fields;
}
