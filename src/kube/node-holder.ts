/**
 * Which device a Node is: an annotation that the first device writes and none
 * after it, and one by which a second says that it was refused.
 *
 *   holdfast.dev/holder          MACHINE-ID/BOARD of the device that is this node
 *   holdfast.dev/refused-holder  of the last other one that had its identity
 */

/** Names the device that is the node. */
export const HOLDER_ANNOTATION = "holdfast.dev/holder";
/** Names the last device that was refused. */
export const REFUSED_ANNOTATION = "holdfast.dev/refused-holder";

/** What stands in a Node. */
export interface HolderWords {
  readonly holder: string | undefined;
  readonly refused: string | undefined;
}

/** Reads it off a Node's annotations. */
export function holderWords(annotations: Readonly<Record<string, string>>): HolderWords {
  return { holder: annotations[HOLDER_ANNOTATION], refused: annotations[REFUSED_ANNOTATION] };
}
