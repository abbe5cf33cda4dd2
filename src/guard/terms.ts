/**
 * On what terms a node is held, read from its object: the same judgement as the
 * policies' CEL, which a test in the lab compares case by case.
 */

import type { Bound, GuardParameters } from "./parameters.ts";
import { parseBound } from "./parameters.ts";
import { OPENYURT_AUTONOMY, OPENYURT_DURATION, OPT_IN_LABEL, OPT_IN_VALUES, RELEASED_LABEL } from "./names.ts";

/** A node's labels and annotations, as far as the terms need them. */
export interface NodeMetadata {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** The terms of a node that has opted in. */
export interface HoldTerms {
  readonly via: "label" | "openyurt";
  /** True: held only while some neighbour hears it. */
  readonly asksWitnesses: boolean;
  /** How long it may be silent, ms; undefined for ever. */
  readonly boundMs: Bound;
  /** Why the guard has ended protection; undefined while it lasts. */
  readonly released: string | undefined;
}

/**
 * The terms of a node.
 *
 * A bound for the node by name goes before OpenYurt's annotation, and that
 * before the common one.
 *
 * @returns undefined when the node has not opted in.
 */
export function termsOf(node: NodeMetadata, parameters: GuardParameters): HoldTerms | undefined {
  const { labels = {}, annotations = {} } = node;
  const label = labels[OPT_IN_LABEL];
  const isLabelled = label !== undefined && (OPT_IN_VALUES as readonly string[]).includes(label);
  const duration = parameters.readsOpenYurt ? annotations[OPENYURT_DURATION] : undefined;
  const isYurt = parameters.readsOpenYurt && (duration !== undefined || annotations[OPENYURT_AUTONOMY] === "true");
  if (!isLabelled && !isYurt) return undefined;
  return {
    via: isLabelled ? "label" : "openyurt",
    asksWitnesses: label === "witness",
    boundMs: boundOf(node.name, duration, parameters),
    released: labels[RELEASED_LABEL],
  };
}

function boundOf(name: string, duration: string | undefined, parameters: GuardParameters): Bound {
  if (parameters.boundOf.has(name)) return parameters.boundOf.get(name);
  if (duration === undefined) return parameters.bound;
  const ms = parseBound(duration);
  return ms === "unreadable" ? undefined : ms;
}
