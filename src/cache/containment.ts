/**
 * A copy vouches for everything that lies within it. The one place that says
 * what lies within what, and how it is cut out.
 *
 *   same resource and version
 *   a namespace inside its namespace       pods -A answers pods -n shop
 *   selectors that select no more          pods -n shop answers pods -n shop -l app=web
 *   a form that can be made of its items   objects -> objects, metadata alone
 *                                          rows of a Table -> rows, metadata alone
 *                                          metadata alone -> metadata alone
 *
 * JSON is made of JSON only, protobuf of protobuf only, and a Table of rows
 * only: its cells are the API server's. Labels can be decided wherever there
 * is metadata; fields only where the whole object is kept, and only those that
 * are known here for the resource. Selectors that are not understood to the
 * last detail lie within a copy with the very same ones and in no other.
 *
 * Never the other way round: a part does not answer for the whole.
 *
 * Who may be answered so is decided elsewhere: one and the same caller always,
 * another only after it has proven its right (sharing.ts).
 */

import type { Item, Shape } from "../kube/codec.ts";
import { objectOfRow, partialItem, partialShape } from "../kube/partial-metadata.ts";
import { representationsOfKey, type Representation } from "../kube/representation.ts";
import { isSelectedWithin, selectionOf, type Selection } from "../kube/selectors.ts";
import type { ListedState, ScopeIdentity } from "../store/contract.ts";

/** How an answer is cut out of a copy. */
export interface Part {
  /** Of the answer; the format stays. */
  readonly shape: Shape;
  /** Whether an item of the copy belongs to it; undefined where all do. */
  readonly selects: ((item: Item) => boolean) | undefined;
  /** Whether an object may come to belong to it, or cease to, while it lives. */
  readonly mayChange: boolean;
  /** An item of the copy in the answer's form; undefined where it is in that form already. */
  readonly form: ((item: Item) => Item) | undefined;
}

/** What is known of a copy. */
export interface Whole {
  readonly identity: ScopeIdentity;
  readonly listed: Pick<ListedState, "shape" | "contentType">;
}

/**
 * How what is asked for is cut out of a copy.
 *
 * @param asked whose `representation` matters only for what rows are to include.
 * @param wanted the form of the answer.
 * @returns undefined when the copy does not vouch for it.
 */
export function partOf({ identity, listed }: Whole, asked: ScopeIdentity, wanted: Representation): Part | undefined {
  const form = formOf(listed, wanted, includedIn(identity) === includedIn(asked));
  if (form === undefined || !isOfSameResource(identity, asked)) return undefined;
  const whole = { ...form, selects: undefined, mayChange: false };
  if (isSameSelection(identity, asked)) return whole;
  const selection = selectionWithin(identity, asked);
  const selects = selection === undefined ? undefined : decidedOn(listed, selection);
  return selection === undefined || selects === undefined
    ? undefined
    : { ...whole, selects, mayChange: selection.mayChange };
}

/** How a selection is decided on what a copy's items carry; undefined where they do not tell. */
export function decidedOn(listed: Whole["listed"], selection: Selection): ((item: Item) => boolean) | undefined {
  const isRow = listed.shape.listKind === "Table";
  const isPartial = listed.shape.listKind === "PartialObjectMetadataList";
  if ((isRow || isPartial) && !selection.isOfMetadata) return undefined;
  const format = formatOf(listed);
  // A row is looked into only where its metadata does not decide.
  return (item) => selection.matches(isRow && selection.mayChange ? objectOfRow(item) : item, format);
}

/** The form that a list is in. */
export function representationOf({ shape, contentType }: Whole["listed"]): Representation {
  const format = formatOf({ contentType });
  const asVersion = shape.apiVersion.replace("meta.k8s.io/", "");
  if (shape.listKind === "Table") return { format, as: "Table", asVersion };
  if (shape.listKind === "PartialObjectMetadataList") return { format, as: "PartialObjectMetadata", asVersion };
  return { format, as: "object", asVersion: "" };
}

/** Whether the copy would hold an object of this name if there was one. */
export function coversObject(identity: ScopeIdentity, namespace: string, name: string): boolean {
  const { fieldSelector, labelSelector } = identity;
  if (labelSelector !== "" || (identity.namespace !== "" && identity.namespace !== namespace)) return false;
  return fieldSelector === "" || fieldSelector === `metadata.name=${name}`;
}

/** Whether everything that one selects the other selects too, whatever their forms. */
export function selectionWithin(whole: ScopeIdentity, part: ScopeIdentity): Selection | undefined {
  if (!isOfSameResource(whole, part)) return undefined;
  if (whole.namespace !== "" && whole.namespace !== part.namespace) return undefined;
  return isSelectedWithin(part, whole) ? selectionOf(part) : undefined;
}

/** The format that a copy is kept in. */
export function formatOf({ contentType }: Pick<ListedState, "contentType">): "json" | "protobuf" {
  return contentType === "application/json" ? "json" : "protobuf";
}

/** The forms that a copy was asked for in, best first. */
export function askedForms({ representation }: ScopeIdentity): readonly Representation[] {
  return representationsOfKey(representation.split(";includeObject=", 1)[0]!);
}

/** What a Table's rows carry of their objects, as it was asked for. */
export function includedIn({ representation }: ScopeIdentity): string {
  return representation.split(";includeObject=")[1] ?? "Metadata";
}

function isOfSameResource(one: ScopeIdentity, other: ScopeIdentity): boolean {
  return one.group === other.group && one.version === other.version && one.resource === other.resource;
}

function isSameSelection(one: ScopeIdentity, other: ScopeIdentity): boolean {
  return (
    one.namespace === other.namespace &&
    one.fieldSelector === other.fieldSelector &&
    one.labelSelector === other.labelSelector
  );
}

function formOf(
  listed: Whole["listed"],
  { format, as, asVersion }: Representation,
  includesAlike: boolean,
): Pick<Part, "shape" | "form"> | undefined {
  if (formatOf(listed) !== format) return undefined;
  const { shape } = listed;
  const isRow = shape.listKind === "Table";
  const isPartial = shape.listKind === "PartialObjectMetadataList";
  const isOfVersion = shape.apiVersion === `meta.k8s.io/${asVersion}`;
  const asKept = { shape, form: undefined };
  if (as === "object") return isRow || isPartial ? undefined : asKept;
  if (as === "Table") return isRow && isOfVersion && includesAlike ? asKept : undefined;
  if (isPartial && isOfVersion) return asKept;
  const made = partialShape(asVersion, format);
  const form = (item: Item) => partialItem(isRow ? objectOfRow(item) : item, asVersion, format);
  return { shape: made, form };
}
