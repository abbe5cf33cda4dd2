/**
 * An API server of three resources, with its whole history.
 *
 * Clients see what a real one would show: a window of history, lists in pages,
 * selectors, bookmarks, and 410 in both of its forms. The checks see all of
 * it, compacted or not, and also the histories that a restored backup undid.
 */

import type { ScopeIdentity } from "../../src/store/contract.ts";

/** One version of an object; `value` is different for every write. */
export interface Version {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly revision: number;
  readonly app: string;
  readonly node: string;
  readonly value: string;
  /** More fields, as JSON without braces; "" for none. */
  readonly extra: string;
  /** Its one annotation; "" for none. Stays when a write does not name it. */
  readonly note: string;
}

interface Change {
  readonly revision: number;
  readonly resource: string;
  readonly key: string;
  readonly before: Version | undefined;
  readonly now: Version | undefined;
}

/** Which objects a request is about. */
export type Selection = Pick<ScopeIdentity, "resource" | "namespace" | "fieldSelector" | "labelSelector">;

/** A watch event as the API server would send it to one selection. */
export interface ServerEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly version: Version;
}

const KINDS: Readonly<Record<string, string>> = {
  pods: "Pod",
  configmaps: "ConfigMap",
  nodes: "Node",
  endpointslices: "EndpointSlice",
};
const GROUPS: Readonly<Record<string, string>> = { endpointslices: "discovery.k8s.io/" };

/** One line of history; a restored backup begins another that shares its past. */
class Timeline {
  readonly #states = new Map<string, ReadonlyMap<string, Version>>();

  constructor(
    readonly changes: Change[],
    public revision: number,
  ) {}

  /** All objects of a resource as of a revision. */
  at(resource: string, revision: number): ReadonlyMap<string, Version> {
    const id = `${resource}@${revision}`;
    const known = this.#states.get(id);
    if (known !== undefined) return known;
    const state = new Map<string, Version>();
    for (const change of this.changes) {
      if (change.revision > revision) break;
      if (change.resource !== resource) continue;
      if (change.now === undefined) state.delete(change.key);
      else state.set(change.key, change.now);
    }
    if (revision <= this.revision) this.#states.set(id, state);
    return state;
  }
}

/** The objects, their history, and what a client may still ask of it. */
export class ApiServer {
  /** Watches that begin below it get 410. */
  windowFloor = 0;
  restores = 0;
  readonly #timelines: Timeline[] = [new Timeline([], 100)];
  readonly #denied = new Map<string, 401 | 403>();
  readonly #returned = new Set<string>();
  readonly #byValue = new Map<string, Version>();
  #uid = 0;
  #onChange: (change: Change) => void = () => {};

  /** The newest revision. */
  get revision(): number {
    return this.#now.revision;
  }

  get #now(): Timeline {
    return this.#timelines.at(-1)!;
  }

  /** Calls back after every write. */
  onChange(listener: (change: Change) => void): void {
    this.#onChange = listener;
  }

  /** All objects of a resource now. */
  objects(resource: string): Version[] {
    return [...this.#now.at(resource, this.revision).values()];
  }

  /** Creates, changes, or (without `fields`) deletes an object. */
  write(
    resource: string,
    namespace: string,
    name: string,
    fields:
      { readonly app: string; readonly node: string; readonly extra?: string; readonly note?: string } | undefined,
  ): void {
    const key = keyOf({ namespace, name });
    const before = this.#now.at(resource, this.revision).get(key);
    if (before === undefined && fields === undefined) return;
    const revision = ++this.#now.revision;
    const now =
      fields === undefined
        ? undefined
        : {
            resource,
            namespace,
            name,
            uid: before?.uid ?? `uid-${++this.#uid}`,
            revision,
            extra: "",
            note: before?.note ?? "",
            ...fields,
            value: `${this.#timelines.length}.${revision}`,
          };
    const change = { revision, resource, key, before, now };
    this.#now.changes.push(change);
    if (now !== undefined) this.#byValue.set(now.value, now);
    this.#onChange(change);
  }

  /** Forgets history below a revision, as etcd and the watch cache do. */
  compact(revision: number): void {
    this.windowFloor = Math.max(this.windowFloor, Math.min(revision, this.revision));
  }

  /** Back to a revision, as a backup restores it: what was written since is undone, and its revisions are used again. */
  restore(revision: number): void {
    this.restores++;
    this.#timelines.push(
      new Timeline(
        this.#now.changes.filter((change) => change.revision <= revision),
        revision,
      ),
    );
    this.windowFloor = revision;
  }

  /** Takes a permission from a principal, or (undefined) gives it back. */
  deny(principal: string, resource: string, status: 401 | 403 | undefined): void {
    const id = `${principal}\n${resource}`;
    if (status === undefined) this.#denied.delete(id);
    else this.#denied.set(id, status);
  }

  /** The refusal a principal gets for this resource. */
  refusalOf(principal: string, resource: string): 401 | 403 | undefined {
    return this.#denied.get(`${principal}\n${resource}`);
  }

  /** Whether this principal's credential is refused. */
  isUnauthorized(principal: string): boolean {
    for (const [id, status] of this.#denied) if (status === 401 && id.startsWith(`${principal}\n`)) return true;
    return false;
  }

  /** A page of a list. @returns undefined when the snapshot it continues is compacted away. */
  list(
    identity: ScopeIdentity,
    pageItems: number,
    continueToken: string,
  ): { readonly text: string; readonly revision: number } | undefined {
    const [at, after] = continueToken === "" ? [this.revision, ""] : splitToken(continueToken);
    if (at < this.windowFloor) return undefined;
    const all = [...this.select(identity, at).values()].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    const rest = all.filter((version) => keyOf(version) > after);
    const page = pageItems === 0 ? rest : rest.slice(0, pageItems);
    for (const version of page) this.#note(identity, version);
    this.#noteMoment(identity, at);
    const next = page.length < rest.length ? `,"continue":"${at}:${keyOf(page.at(-1)!)}"` : "";
    const kind = KINDS[identity.resource]!;
    const text = `{"kind":"${kind}List","apiVersion":"${GROUPS[identity.resource] ?? ""}v1","metadata":{"resourceVersion":"${at}"${next}},"items":[${page.map(bareText).join(",")}]}\n`;
    return { text, revision: at };
  }

  /** One object, as a GET answers it. */
  get(identity: ScopeIdentity, namespace: string, name: string): string | undefined {
    const version = this.#now.at(identity.resource, this.revision).get(keyOf({ namespace, name }));
    if (version === undefined) return undefined;
    this.#note(identity, version);
    return objectText(version);
  }

  /** Events above a revision, as one selection sees them. */
  eventsAfter(identity: Selection, revision: number): ServerEvent[] {
    const events: ServerEvent[] = [];
    for (const change of this.#now.changes) {
      if (change.revision <= revision) continue;
      const event = eventOf(change, identity);
      if (event !== undefined) events.push(event);
    }
    return events;
  }

  /** An event's frame, noted as returned to this principal. */
  eventText(identity: ScopeIdentity, { type, version }: ServerEvent): string {
    this.#note(identity, version);
    this.#noteMoment(identity, version.revision);
    return `{"type":"${type}","object":${objectText(version).trimEnd()}}\n`;
  }

  /** A bookmark's frame. */
  bookmarkText(identity: ScopeIdentity, revision: number): string {
    this.#noteMoment(identity, revision);
    return `{"type":"BOOKMARK","object":{"kind":"${KINDS[identity.resource]}","apiVersion":"${GROUPS[identity.resource] ?? ""}v1","metadata":{"resourceVersion":"${revision}","creationTimestamp":null}}}\n`;
  }

  // ---- for the checks ----

  /** The true content of a selection as of a revision, in today's history. */
  select(identity: Selection, revision: number): Map<string, Version> {
    return selected(this.#now, identity, revision);
  }

  /** The content of a selection as of a revision, in every history that had it. */
  *truths(identity: Selection, revision: number): Iterable<Map<string, Version>> {
    for (const timeline of this.#timelines.toReversed())
      if (revision <= timeline.revision) yield selected(timeline, identity, revision);
  }

  /** The version that was written with this value. */
  versionOf(value: string): Version | undefined {
    return this.#byValue.get(value);
  }

  /** Whether this principal was ever sent this version of the object. */
  wasReturned(principal: string, uid: string, value: string): boolean {
    return this.#returned.has(`${principal}\n${uid}\n${value}`);
  }

  /** Whether this collection was ever said to stand at this revision. */
  wasMoment(identity: ScopeIdentity, revision: number): boolean {
    return this.#returned.has(momentId(identity, revision));
  }

  /** Whether anybody was ever sent this version of the object. */
  wasReturnedToAny(uid: string, value: string): boolean {
    return this.#returned.has(`\n${uid}\n${value}`);
  }

  /** Whether any collection of this resource was ever said to stand at this revision. */
  wasMomentOf(resource: string, revision: number): boolean {
    return this.#returned.has(`any ${resource}\n${revision}`);
  }

  #note({ principal }: ScopeIdentity, { uid, value }: Version): void {
    this.#returned.add(`${principal}\n${uid}\n${value}`);
    this.#returned.add(`\n${uid}\n${value}`);
  }

  #noteMoment(identity: ScopeIdentity, revision: number): void {
    this.#returned.add(`any ${identity.resource}\n${revision}`);
    this.#returned.add(momentId(identity, revision));
  }
}

/** What a change is to a selection: an object may enter or leave it by its labels. */
export function eventOf({ revision, resource, before, now }: Change, identity: Selection): ServerEvent | undefined {
  if (resource !== identity.resource) return undefined;
  const was = before !== undefined && isSelected(identity, before);
  const is = now !== undefined && isSelected(identity, now);
  if (is) return { type: was ? "MODIFIED" : "ADDED", version: now };
  return was ? { type: "DELETED", version: { ...before, revision } } : undefined;
}

/** Whether an object belongs to a selection. */
export function isSelected(
  { resource, namespace, fieldSelector, labelSelector }: Selection,
  version: Version,
): boolean {
  if (version.resource !== resource || (namespace !== "" && version.namespace !== namespace)) return false;
  if (labelSelector !== "" && labelSelector !== `app=${version.app}`) return false;
  return (
    fieldSelector === "" ||
    fieldSelector === `spec.nodeName=${version.node}` ||
    fieldSelector === `metadata.name=${version.name}`
  );
}

/** "namespace/name", or "name". */
export function keyOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return namespace === "" ? name : `${namespace}/${name}`;
}

function selected(timeline: Timeline, identity: Selection, revision: number): Map<string, Version> {
  const all = timeline.at(identity.resource, revision);
  return new Map([...all].filter(([, version]) => isSelected(identity, version)));
}

function momentId(identity: ScopeIdentity, revision: number): string {
  const { principal, resource, namespace, fieldSelector, labelSelector } = identity;
  return `${principal}\n${resource}\n${namespace}\n${fieldSelector}\n${labelSelector}\n${revision}`;
}

function splitToken(token: string): [number, string] {
  const at = token.indexOf(":");
  return [Number(token.slice(0, at)), token.slice(at + 1)];
}

function bareText({ namespace, name, uid, revision, app, node, value, extra, note }: Version): string {
  const place = namespace === "" ? "" : `"namespace":"${namespace}",`;
  const annotations = note === "" ? "" : `,"annotations":{"note":"${note}"}`;
  return `{"metadata":{"name":"${name}",${place}"uid":"${uid}","resourceVersion":"${revision}","labels":{"app":"${app}"}${annotations}},"spec":{"nodeName":"${node}"},"value":"${value}"${extra === "" ? "" : `,${extra}`}}`;
}

function objectText(version: Version): string {
  return `{"kind":"${KINDS[version.resource]}","apiVersion":"${GROUPS[version.resource] ?? ""}v1",${bareText(version).slice(1)}\n`;
}
