/**
 * The kind of one object, from the kind of its list.
 */

import type { Shape } from "./codec.ts";

/** "Pod" for a PodList. Every registered built-in list follows the rule; a custom resource that does not has `itemKind`. */
export function itemKind(shape: Shape): string {
  return shape.itemKind ?? (shape.listKind.endsWith("List") ? shape.listKind.slice(0, -"List".length) : shape.listKind);
}
