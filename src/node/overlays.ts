/**
 * What kubelet said of its node and its pods while nobody could be told.
 *
 * A status that cannot go up is laid over the kept object, so that later
 * reads, lists and open watches show it, and kubelet finds after a restart
 * what it said before. Nothing is queued: at the return the cloud's truth is
 * handed down in its place and kubelet, which is level-triggered, sends again
 * what differs. Only a terminal phase stays remembered until the cloud knows
 * it too: a finished Job must not run again because the link broke twice.
 *
 * An overlay is a status and the few metadata a status write may change, laid
 * on whatever row of the same UID a scope holds. On disk: at once where a
 * reboot would miss it (a first status, a phase, an address), within half a
 * minute otherwise, a node's heartbeats within ten minutes.
 */

import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { type Json, parseExact, rewritten, writeExact } from "../kube/exact-json.ts";
import { jsonMerge, PatchError, strategicMerge } from "../kube/strategic-merge.ts";
import { StatusError } from "../kube/status-error.ts";
import type { Store } from "../store/contract.ts";
import { LocalVersions } from "../cache/edits.ts";
import { EndpointEdits, type LocalPod } from "./endpoint-edits.ts";
import type { Scope } from "../cache/scope.ts";
import type { FoundObject, Scopes } from "../cache/scopes.ts";

/** The object a status belongs to. */
export interface StatusTarget {
  readonly resource: "pods" | "nodes";
  /** "" for a node. */
  readonly namespace: string;
  readonly name: string;
}

/** A kept overlay that is not what was written. */
export class OverlayDamagedError extends EdgeError {
  override readonly name = "OverlayDamagedError";
  readonly code = "OVERLAY_DAMAGED";
}

type Fields = { readonly [key: string]: Json };

interface Overlay extends StatusTarget {
  readonly uid: string;
  readonly status: Fields;
  /** Labels and annotations as the status write left them. */
  readonly metadata: Fields;
  /** True: a link returned since, and only its terminal phase is remembered, until the cloud knows it too. */
  readonly isRemembered?: boolean;
}

interface OverlayParts {
  readonly store: Store;
  readonly scopes: Scopes;
  readonly clock: Clock;
  readonly log: Log;
}

const VALUE_PREFIX = "overlay/";
const KINDS = { pods: "Pod", nodes: "Node" } as const;
const SAVE_AFTER_MS = { pods: 30_000, nodes: 600_000 } as const;
/** What a status write may change of metadata. */
const CHANGEABLE_METADATA = ["labels", "annotations", "finalizers"];
const STRATEGIC = "application/strategic-merge-patch+json";
const MERGE = "application/merge-patch+json";

/** All overlays of this node. */
export class Overlays {
  #overlays = new Map<string, Overlay>();
  #unsaved = new Set<string>();
  #cancelSave: (() => void) | undefined;
  #saveAtMs = 0;
  readonly #versions: LocalVersions;
  readonly #endpoints: EndpointEdits;

  constructor(private readonly parts: OverlayParts) {
    this.#versions = new LocalVersions(parts.store);
    this.#endpoints = new EndpointEdits({ ...parts, versions: this.#versions, pods: () => this.#localPods() });
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
   * @throws {StatusError} 409 for another UID or resourceVersion, 400 for a patch that is none, 415 for an unknown patch type, 503 when the object is not kept.
   */
  patchStatus(principal: string, target: StatusTarget, patch: { contentType: string; body: Uint8Array }): FoundObject {
    const found = this.#find(principal, target);
    if (found === undefined)
      throw new StatusError({
        code: 503,
        reason: "ServiceUnavailable",
        message: `Cannot patch the status of ${target.resource} "${target.name}": the API server cannot be reached and the object is not kept here`,
      });
    const before = parse(found.item.bytes);
    const after = merged(before, patch, target);
    if (Bun.deepEquals(before, after)) return found;
    const overlay = overlayOf(after, target, found.item.meta.uid);
    const key = keyOf(overlay);
    const isUrgent = isWorthSaving(this.#overlays.get(key)?.status ?? (before["status"] as Fields), overlay);
    this.#overlays.set(key, overlay);
    this.#lay(overlay);
    this.#save(key, isUrgent ? 0 : SAVE_AFTER_MS[target.resource]);
    if (target.resource === "pods") this.#endpoints.changed();
    return this.#find(principal, target) ?? found;
  }

  /** The cloud's truth was handed down: overlays end, but for terminal phases that the cloud does not know yet. */
  returned(): void {
    for (const scope of this.parts.scopes.all()) scope.endEdits();
    for (const [key, overlay] of this.#overlays) {
      if (isTerminal(overlay.status) && this.#isNews(overlay)) {
        this.#overlays.set(key, { ...overlay, isRemembered: true });
        this.#save(key, 0);
        continue;
      }
      this.#forget(key);
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
    for (const [key, overlay] of this.#overlays)
      if (overlay.isRemembered === true && !this.#isNews(overlay)) this.#forget(key);
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
        this.parts.store.putValue(VALUE_PREFIX + key, Buffer.from(writeExact(overlay)), { isSecret: false });
    }
    this.#unsaved.clear();
  }

  #find(principal: string, { resource, namespace, name }: StatusTarget): FoundObject | undefined {
    return this.parts.scopes.findObject({ principal, group: "", version: "v1", resource, namespace, name }, [
      { format: "json", as: "object", asVersion: "" },
    ]);
  }

  #lay(overlay: Overlay): void {
    for (const scope of this.parts.scopes.all()) {
      if (scope.identity.resource !== overlay.resource || !isPlainJson(scope)) continue;
      const row = scope.row(overlay.namespace, overlay.name);
      if (row === undefined || row.meta.uid !== overlay.uid) continue;
      scope.edit([laidOver(row, overlay, this.#versions.next())]);
    }
  }

  /** Whether the cloud still shows the pod, without its terminal phase. */
  #isNews(overlay: Overlay): boolean {
    for (const scope of this.parts.scopes.all()) {
      if (scope.identity.resource !== overlay.resource || !isPlainJson(scope)) continue;
      const row = scope.row(overlay.namespace, overlay.name);
      if (row?.meta.uid === overlay.uid) return !isTerminal(parse(row.bytes)["status"] as Fields | undefined);
    }
    return false;
  }

  #localPods(): ReadonlyMap<string, LocalPod> {
    const pods = new Map<string, LocalPod>();
    for (const { resource, uid, status } of this.#overlays.values()) {
      if (resource === "pods") pods.set(uid, { uid, ips: addressesOf(status), isReady: isReady(status) });
    }
    return pods;
  }

  #forget(key: string): void {
    this.#overlays.delete(key);
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

function keyOf({ resource, namespace, name }: StatusTarget): string {
  return `${resource}/${namespace}/${name}`;
}

function isPlainJson({ identity, listed }: Scope): boolean {
  return (
    identity.group === "" &&
    listed?.contentType === "application/json" &&
    (listed.shape.listKind === "PodList" || listed.shape.listKind === "NodeList")
  );
}

function parse(bytes: Uint8Array): Fields {
  return parseExact(bytes) as Fields;
}

/** The object after the patch, with everything put back that a status write cannot change. */
function merged(before: Fields, patch: { contentType: string; body: Uint8Array }, target: StatusTarget): Fields {
  const type = patch.contentType.split(";")[0]!.trim();
  if (type !== STRATEGIC && type !== MERGE)
    throw new StatusError({
      code: 415,
      reason: "UnsupportedMediaType",
      message: `Cannot apply a patch of type "${type.slice(0, 64)}" while the API server cannot be reached: only ${STRATEGIC} and ${MERGE}`,
    });
  let after: Fields;
  try {
    const changes = parse(patch.body);
    if (changes === null || typeof changes !== "object" || Array.isArray(changes))
      throw new PatchError("it is not a JSON object", 400);
    refuseOther(changes, before, target);
    after = (
      type === MERGE ? jsonMerge(before, changes) : strategicMerge(before, changes, KINDS[target.resource])
    ) as Fields;
    refuseMisshapen(after);
  } catch (error) {
    if (error instanceof StatusError) throw error;
    throw new StatusError(
      {
        ...(error instanceof PatchError && error.statusCode === 422
          ? { code: 422, reason: "Invalid" }
          : { code: 400, reason: "BadRequest" }),
        message: `Cannot patch ${target.resource} "${target.name}": ${error instanceof PatchError ? error.message : "the body is not JSON"}`,
      },
      { cause: error },
    );
  }
  const [mine, theirs] = [before["metadata"] as Fields, (after["metadata"] ?? {}) as Fields];
  const metadata: Record<string, Json> = { ...mine };
  for (const name of CHANGEABLE_METADATA) {
    if (theirs[name] === undefined) delete metadata[name];
    else metadata[name] = theirs[name];
  }
  const { status, ...rest } = before;
  return { ...rest, metadata, status: withOneTruth((after["status"] ?? status ?? {}) as Fields) };
}

/** The API server decodes the outcome into the type; what is read of it here must be what the type says. */
function refuseMisshapen({ metadata = {}, status = {} }: Fields): void {
  const isMap = (value: Json): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
  const isListOf = (value: Json | undefined, isItem: (item: Json) => boolean) =>
    value === undefined || value === null || (Array.isArray(value) && value.every(isItem));
  const isText = (value: Json) => typeof value === "string";
  const isMapOfTexts = (value: Json | undefined) =>
    value === undefined || value === null || (isMap(value) && Object.values(value).every(isText));
  if (!isMap(metadata)) throw new PatchError("metadata would not be an object");
  if (!isMap(status)) throw new PatchError("status would not be an object");
  for (const name of ["labels", "annotations"])
    if (!isMapOfTexts(metadata[name])) throw new PatchError(`metadata.${name} would not be a map of strings`);
  if (!isListOf(metadata["finalizers"], isText))
    throw new PatchError("metadata.finalizers would not be a list of strings");
  for (const name of ["podIPs", "conditions"])
    if (!isListOf(status[name], isMap)) throw new PatchError(`status.${name} would not be a list of objects`);
}

/** As the API server does after merging: where podIPs does not begin with podIP, podIP stands alone. */
function withOneTruth(status: Fields): Fields {
  const { podIP, podIPs } = status;
  const [first] = (podIPs ?? []) as readonly Fields[];
  if (typeof podIP !== "string" || podIP === "" || first === undefined || first["ip"] === podIP) return status;
  return { ...status, podIPs: [{ ip: podIP }] };
}

/** A patch that names a UID or resourceVersion means that object and no other. */
function refuseOther(changes: Fields, before: Fields, { resource, name }: StatusTarget): void {
  const asked = (changes["metadata"] ?? {}) as Fields;
  const held = before["metadata"] as Fields;
  for (const [field, title] of [
    ["uid", "UID"],
    ["resourceVersion", "ResourceVersion"],
  ] as const) {
    const wanted = asked[field];
    if (wanted === undefined || wanted === null || wanted === "" || wanted === held[field]) continue;
    throw new StatusError({
      code: 409,
      reason: "Conflict",
      message: `Operation cannot be fulfilled on ${resource} "${name}": Precondition failed: ${title} in precondition: ${String(wanted).slice(0, 64)}, ${title} in object meta: ${String(held[field])}`,
    });
  }
}

function overlayOf(after: Fields, { resource, namespace, name }: StatusTarget, uid: string): Overlay {
  const metadata: Record<string, Json> = {};
  for (const field of CHANGEABLE_METADATA) {
    const value = (after["metadata"] as Fields)[field];
    if (value !== undefined) metadata[field] = value;
  }
  return { resource, namespace, name, uid, status: after["status"] as Fields, metadata };
}

function laidOver(row: Item, overlay: Overlay, resourceVersion: string): Item {
  const object = parse(row.bytes);
  const metadata: Record<string, Json> = { ...(object["metadata"] as Fields), resourceVersion };
  for (const field of CHANGEABLE_METADATA) {
    const value = overlay.metadata[field];
    if (value === undefined) delete metadata[field];
    else metadata[field] = value;
  }
  const bytes = rewritten(row.bytes, object, { ...object, metadata, status: overlay.status });
  return { meta: { ...row.meta, resourceVersion }, bytes };
}

function readOverlay(bytes: Uint8Array | undefined): Overlay {
  const value = bytes === undefined ? undefined : (parse(bytes) as unknown as Partial<Overlay>);
  const isWhole =
    (value?.resource === "pods" || value?.resource === "nodes") &&
    typeof value.namespace === "string" &&
    typeof value.name === "string" &&
    typeof value.uid === "string" &&
    typeof value.status === "object" &&
    value.status !== null &&
    typeof value.metadata === "object";
  if (!isWhole) throw new OverlayDamagedError("Cannot read a kept overlay: it is not what was written");
  return value as Overlay;
}

function isTerminal(status: Fields | undefined): boolean {
  return status?.["phase"] === "Succeeded" || status?.["phase"] === "Failed";
}

/** What a reboot would miss: the first status after a row's own, another phase, other addresses. */
function isWorthSaving(before: Fields | undefined, { resource, status }: Overlay): boolean {
  if (resource === "nodes") return false;
  return (
    before?.["phase"] !== status["phase"] ||
    addressesOf(before).join() !== addressesOf(status).join() ||
    isReady(before) !== isReady(status)
  );
}

function addressesOf(status: Fields | undefined): string[] {
  const listed = ((status?.["podIPs"] ?? []) as readonly Fields[]).map(({ ip }) => ip);
  return (listed.length > 0 ? listed : [status?.["podIP"]]).filter((ip): ip is string => typeof ip === "string");
}

function isReady(status: Fields | undefined): boolean {
  const conditions = (status?.["conditions"] ?? []) as readonly Fields[];
  return !isTerminal(status) && conditions.some(({ type, status: value }) => type === "Ready" && value === "True");
}
