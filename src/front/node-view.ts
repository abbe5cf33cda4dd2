/**
 * What this node holds of a resource, for the person who sits at it.
 *
 * Whatever any caller on this node was told is on its disk, and root may read
 * that disk: so all copies count, and of one object the newest. An object is
 * not shown when a newer copy, that would hold it, holds it no more. What was
 * kept as a Table has its cells and nothing behind them.
 *
 * One line of JSON says which copies these are, then one for each object: they
 * are read and written one by one. The values of Secrets leave this process
 * only when they are asked for, and nothing here is served to a client.
 */

import { coversObject } from "../cache/containment.ts";
import { isUndone } from "../cache/known-newer.ts";
import type { Scope } from "../cache/scope.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { Item } from "../kube/codec.ts";
import { parseText } from "../kube/json-scan.ts";
import { isParsed, textOf, type Parsed } from "../kube/json-list-reader.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import { parseLabelSelector, type Requirement } from "../kube/selectors.ts";
import { protobufToJson } from "../kube/protobuf-to-json.ts";

/** What is asked for; "" leaves it open. */
export interface ViewQuery {
  /** As kubectl takes it: plural or singular. */
  readonly resource: string;
  /** The group or its beginning: "apps". */
  readonly group: string;
  readonly namespace: string;
  readonly name: string;
  readonly labelSelector: string;
  readonly showsSecrets: boolean;
}

/** The first line. */
export interface ViewHead {
  readonly resource: string;
  readonly group: string;
  readonly version: string;
  /** How many copies there are; 0 when nothing of this was ever kept. */
  readonly copies: number;
  /** Whether the API server speaks through all of them now. */
  readonly isLive: boolean;
  /** When it last spoke on the one that was heard of longest ago, ms since the epoch. */
  readonly heardAtMs: number;
}

/** A line of an object: whole, or the row of a Table. */
export type ViewLine =
  | { readonly object: Parsed }
  | {
      readonly columns: readonly { readonly name: string; readonly isWide: boolean }[];
      readonly cells: readonly unknown[];
      readonly metadata: Parsed;
    };

interface Standing {
  readonly scope: Scope;
  readonly resourceVersion: string;
  readonly isWhole: boolean;
}

/** Reads what is asked for from a query string. */
export function viewQuery(query: URLSearchParams): ViewQuery {
  const text = (name: string) => query.get(name) ?? "";
  return {
    resource: text("resource"),
    group: text("group"),
    namespace: text("namespace"),
    name: text("name"),
    labelSelector: text("labelSelector"),
    showsSecrets: text("showSecrets") === "true",
  };
}

/** Lines of what is held. */
export function* nodeView(scopes: Scopes, query: ViewQuery): Generator<ViewHead | ViewLine, void> {
  const copies = copiesOf(scopes, query);
  const [first] = copies;
  const named = first?.identity ?? { resource: query.resource, group: query.group, version: "" };
  const requirements = parseLabelSelector(query.labelSelector) ?? [];
  const standing = newestOf(copies, query);
  const used = new Set([...standing.values()].map(({ scope }) => scope));
  const told = used.size > 0 ? [...used] : copies;
  yield {
    resource: named.resource,
    group: named.group,
    version: named.version,
    copies: told.length,
    isLive: told.length > 0 && told.every(({ state }) => state === "live"),
    heardAtMs: told.reduce((oldest, { listed }) => Math.min(oldest, listed?.lastContactMs ?? oldest), Infinity),
  };
  for (const [key, { scope }] of [...standing].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const slash = key.indexOf("/");
    const item = scope.item(key.slice(0, Math.max(0, slash)), key.slice(slash + 1));
    const line = item === undefined ? undefined : lineOf(scope, item, query.showsSecrets);
    if (line !== undefined && isSelected(line, requirements)) yield line;
  }
}

/** Of several groups with a resource of that name the core one, else the one that is kept most. */
function copiesOf(scopes: Scopes, { resource, group }: ViewQuery): Scope[] {
  const byGroup = new Map<string, Scope[]>();
  for (const scope of scopes.all()) {
    const { identity, listed } = scope;
    if (listed === undefined || !isNamed(identity.resource, resource)) continue;
    if (group !== "" && identity.group !== group && !identity.group.startsWith(`${group}.`)) continue;
    const key = `${identity.group}/${identity.version}`;
    byGroup.set(key, [...(byGroup.get(key) ?? []), scope]);
  }
  const ranked = [...byGroup].sort(([a, one], [b, other]) =>
    a.startsWith("/") === b.startsWith("/") ? other.length - one.length : a.startsWith("/") ? -1 : 1,
  );
  return ranked[0]?.[1] ?? [];
}

function isNamed(plural: string, word: string): boolean {
  return plural === word || plural === `${word}s` || plural === `${word}es` || plural === word.replace(/y$/, "ies");
}

/** The newest copy of each object; whole objects before rows, whichever is newer: a row has only cells. */
function newestOf(copies: readonly Scope[], query: ViewQuery): Map<string, Standing> {
  const standing = new Map<string, Standing>();
  for (const scope of copies) {
    using snapshot = scope.rows();
    if (snapshot === undefined) continue;
    const isWhole = !/^(Table|PartialObjectMetadataList)$/.test(snapshot.listed.shape.listKind);
    for (const { meta } of snapshot.items()) {
      // A namespace says nothing of what has none.
      if (query.namespace !== "" && meta.namespace !== "" && meta.namespace !== query.namespace) continue;
      if (query.name !== "" && meta.name !== query.name) continue;
      const key = objectKey(meta.namespace, meta.name);
      const before = standing.get(key);
      const one = { scope, resourceVersion: meta.resourceVersion, isWhole };
      if (before === undefined || isBetter(one, before)) standing.set(key, one);
    }
  }
  for (const [key, one] of standing) if (isGone(copies, key, one)) standing.delete(key);
  return standing;
}

function isBetter(one: Standing, other: Standing): boolean {
  if (one.isWhole !== other.isWhole) return one.isWhole;
  if (one.scope.hasRolledBack !== other.scope.hasRolledBack) return !one.scope.hasRolledBack;
  return compareResourceVersions(one.resourceVersion, other.resourceVersion) > 0;
}

function isGone(copies: readonly Scope[], key: string, { scope, resourceVersion }: Standing): boolean {
  const slash = key.indexOf("/");
  const [namespace, name] = [key.slice(0, Math.max(0, slash)), key.slice(slash + 1)];
  // An edited item has a resourceVersion of ours: what stands under it counts.
  const known = scope.row(namespace, name)?.meta.resourceVersion ?? resourceVersion;
  return copies.some(
    (other) =>
      other.listed !== undefined &&
      coversObject(other.identity, namespace, name) &&
      !isUndone(other, scope) &&
      compareResourceVersions(other.listed.resourceVersion, known) > 0 &&
      other.row(namespace, name) === undefined,
  );
}

function lineOf(scope: Scope, { bytes }: Item, showsSecrets: boolean): ViewLine | undefined {
  const { listed } = scope;
  if (listed === undefined) return undefined;
  const isSecret = scope.identity.resource === "secrets" && !showsSecrets;
  if (listed.shape.listKind === "Table") return rowLine(listed.shape.columnDefinitions, bytes);
  const object = objectText(scope, { bytes });
  if (!isParsed(object)) return undefined;
  return { object: isSecret ? withoutValues(object) : object };
}

/** An item of a copy of whole objects as its JSON says it, whatever form it is kept in; undefined where it cannot be read. */
export function objectText(scope: Scope, { bytes }: Pick<Item, "bytes">): unknown {
  const { listed } = scope;
  if (listed === undefined) return undefined;
  const body = scope.codec(listed).single(listed.shape, bytes);
  return listed.contentType === "application/json" ? parseText(body) : shown(body, scope);
}

/** Of a kind that the tables do not have its metadata is shown. */
function shown(body: Uint8Array, { identity }: Scope): unknown {
  return protobufToJson(body) ?? { kind: identity.resource, metadata: {} };
}

function rowLine(definitions: string | undefined, bytes: Uint8Array): ViewLine | undefined {
  const row = parseText(bytes);
  const columns = parseText(Buffer.from(definitions ?? "[]"));
  if (!isParsed(row) || !Array.isArray(row["cells"]) || !Array.isArray(columns)) return undefined;
  const object = isParsed(row["object"]) ? row["object"] : {};
  const metadata = isParsed(object["metadata"]) ? object["metadata"] : {};
  const { namespace, name, creationTimestamp, labels } = metadata;
  return {
    columns: columns.map((column: unknown) =>
      isParsed(column)
        ? { name: textOf(column["name"]), isWide: Number(column["priority"] ?? 0) > 0 }
        : { name: "", isWide: false },
    ),
    cells: row["cells"] as unknown[],
    metadata: { namespace, name, creationTimestamp, labels },
  };
}

/** A Secret with its keys and the size of each value; kubectl apply keeps a copy of the data in an annotation. */
function withoutValues(object: Parsed): Parsed {
  const hidden: Record<string, unknown> = { ...object };
  for (const field of ["data", "stringData"]) {
    const values = object[field];
    if (!isParsed(values)) continue;
    const sizes = Object.entries(values).map(([key, value]) => [key, `(${String(value).length} characters)`]);
    hidden[field] = Object.fromEntries(sizes);
  }
  const metadata = isParsed(object["metadata"]) ? object["metadata"] : {};
  const annotations = isParsed(metadata["annotations"]) ? metadata["annotations"] : undefined;
  if (annotations !== undefined) {
    const { "kubectl.kubernetes.io/last-applied-configuration": _, ...others } = annotations;
    hidden["metadata"] = { ...metadata, annotations: others };
  }
  return hidden;
}

function isSelected(line: ViewLine, requirements: readonly Requirement[]): boolean {
  const metadata = "object" in line ? line.object["metadata"] : line.metadata;
  const labels = isParsed(metadata) && isParsed(metadata["labels"]) ? metadata["labels"] : {};
  return requirements.every(({ key, isMet }) => isMet(Object.hasOwn(labels, key) ? textOf(labels[key]) : undefined));
}
