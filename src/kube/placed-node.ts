/**
 * A node that is shown at a place, and the way back to what its kubelet wrote.
 *
 *   kubelet wrote    InternalIP 192.168.1.5, Hostname edge-1                      port 10250
 *   the place        InternalIP 10.96.7.7, Hostname 10.96.7.7                     port 10250
 *   shown            InternalIP 10.96.7.7, InternalIP 192.168.1.5,
 *                    Hostname 10.96.7.7, Hostname edge-1                          port 10250
 *   annotation       {"addresses":[what kubelet wrote],"port":10250,"place":{...}}
 *
 * An API server dials the first address of the type it prefers, so the place
 * stands first; the true ones stay behind it for people and agents elsewhere.
 * A place goes under the types that the node has and under no other: an
 * ExternalIP that the node never had would be believed by load balancers.
 *
 * Type by type, because a strategic merge leaves a list so: its merge key is the
 * type, and what is written otherwise would be astray as soon as it is there.
 *
 * The annotation travels in the same write as the addresses, so what is read
 * can be restored from itself. Where others have rewritten the addresses since,
 * theirs are the truth, less what is the place's.
 *
 * Invariant: trueOf(shownAs(truth, place), {truth, place}) is the truth.
 */

import * as v from "valibot";
import type { NodeAddress, Place } from "./place.ts";

/** What a kubelet says of where it is. */
export interface Whereabouts {
  readonly addresses: readonly NodeAddress[];
  /** `status.daemonEndpoints.kubeletEndpoint.Port`; 0 where none is said. */
  readonly port: number;
}

/** What was shown: the truth, and the place in front of it. */
export interface Shown {
  readonly truth: Whereabouts;
  readonly place: Place;
}

/** A Node object's own words, as far as they matter here. */
export interface SeenNode {
  readonly uid: string;
  readonly resourceVersion: string;
  readonly now: Whereabouts;
  /** `PLACE_ANNOTATION`'s text. */
  readonly annotation: string | undefined;
  /** Any annotation, ours or another. */
  readonly hasAnnotations: boolean;
}

/** What is to become of a Node object; what is undefined stays. */
export interface NodeEdit {
  readonly where?: Whereabouts | undefined;
  /** null takes it away, and the map with it when nothing else is in it. */
  readonly annotation?: string | null | undefined;
}

/** Where the truth stands while a place is shown. */
export const PLACE_ANNOTATION = "holdfast.dev/node-addresses";
const MAX_ANNOTATION = 16 * 1024;

const address = v.object({ type: v.string(), address: v.string() });
const annotationSchema = v.object({
  addresses: v.array(address),
  port: v.number(),
  place: v.object({ addresses: v.array(address), port: v.number() }),
});

/** The annotation's text. */
export function annotationOf({ truth, place }: Shown): string {
  const plain = (list: readonly NodeAddress[]) => list.map(({ type, address: at }) => ({ type, address: at }));
  return JSON.stringify({
    addresses: plain(truth.addresses),
    port: truth.port,
    place: { addresses: plain(place.addresses), port: place.port },
  });
}

/** What an annotation says; undefined when it is none of ours. */
export function readAnnotation(text: string): Shown | undefined {
  if (text.length > MAX_ANNOTATION) return undefined;
  try {
    const { addresses, port, place } = v.parse(annotationSchema, JSON.parse(text));
    return { truth: { addresses, port }, place };
  } catch {
    return undefined;
  }
}

/** Where a node is shown. A node without addresses is dialled by nobody and stays as it is. */
export function shownAs(truth: Whereabouts, place: Place | undefined): Whereabouts {
  if (place === undefined || truth.addresses.length === 0) return truth;
  const types = new Set(truth.addresses.map(({ type }) => type));
  const fitting = place.addresses.filter(({ type }) => types.has(type));
  const front = fitting.length > 0 ? fitting : place.addresses;
  // The API server refuses an address that stands there twice.
  return { addresses: typeByType(withoutRepeats([...front, ...truth.addresses])), port: place.port };
}

/** What was there before it was shown. */
export function trueOf(now: Whereabouts, { truth, place }: Shown): Whereabouts {
  const port = now.port === place.port ? truth.port : now.port;
  if (areSame(now.addresses, shownAs(truth, place).addresses)) return { addresses: truth.addresses, port };
  const isPlaces = (one: NodeAddress) => isIn(place.addresses, one) && !isIn(truth.addresses, one);
  const left = now.addresses.filter((one) => !isPlaces(one));
  return { addresses: left.length === 0 ? truth.addresses : left, port };
}

/** Whether both say the same, in the same order. */
export function isSameWhere(one: Whereabouts, other: Whereabouts): boolean {
  return one.port === other.port && areSame(one.addresses, other.addresses);
}

/** What a whole node is written with so that it stands at the place. */
export function showing(truth: Whereabouts, place: Place | undefined): NodeEdit {
  if (place === undefined || truth.addresses.length === 0) return {};
  return { where: shownAs(truth, place), annotation: annotationOf({ truth, place }) };
}

function areSame(one: readonly NodeAddress[], other: readonly NodeAddress[]): boolean {
  return one.length === other.length && one.every((entry, at) => isSame(entry, other[at]!));
}

function isIn(list: readonly NodeAddress[], one: NodeAddress): boolean {
  return list.some((other) => isSame(one, other));
}

function isSame(one: NodeAddress, other: NodeAddress): boolean {
  return one.type === other.type && one.address === other.address;
}

/** In the order in which each type first occurs. */
function typeByType(list: readonly NodeAddress[]): NodeAddress[] {
  const types = [...new Set(list.map(({ type }) => type))];
  return types.flatMap((wanted) => list.filter(({ type }) => type === wanted));
}

function withoutRepeats(list: readonly NodeAddress[]): NodeAddress[] {
  return list.filter((one, at) => list.findIndex((other) => isSame(one, other)) === at);
}
