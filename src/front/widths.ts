/**
 * How many seats a request takes: a long list costs as much as several short
 * ones, as in API Priority and Fairness.
 *
 * How long a list will be, its last answer tells, of whomever it was: one
 * collection is about as long for everybody. A selector may make it shorter;
 * the API server reads all of it anyway, but for the one object of a name.
 */

import { flag, type RequestInfo } from "./request-info.ts";

/** Of an answer; a seat for each piece of this size. */
const BYTES_A_SEAT = 256 * 1024;
const MAX_WIDTH = 8;
/** A list of which nothing is known. */
const UNKNOWN_WIDTH = 2;
const MAX_REMEMBERED = 256;

/** An answer on its way. */
export interface Growing {
  /** So far. */
  readonly sentBytes: number;
}

/** Knows how wide requests are. */
export class Widths {
  /** Bytes of the last answer, by collection. */
  readonly #bytes = new Map<string, number>();
  /** Lists at work: one that its client does not take tells its length all the same. */
  readonly #atWork = new Map<Growing, string>();

  /** Seats of a request; a watch is as wide as the list that it begins with. */
  of(info: RequestInfo): number {
    if (!isCollection(info)) return 1;
    const key = keyOf(info);
    const known = this.#bytes.get(key);
    let bytes = known ?? 0;
    let alike = 0;
    for (const [{ sentBytes }, of] of this.#atWork) {
      if (of !== key) continue;
      alike++;
      bytes = Math.max(bytes, sentBytes);
    }
    // Of a collection that nobody has read to its end, few are read at once.
    const least = known === undefined ? UNKNOWN_WIDTH * (1 + alike) : 1;
    return Math.min(MAX_WIDTH, Math.max(least, Math.ceil(bytes / BYTES_A_SEAT)));
  }

  /** A request is being answered. */
  begun(info: RequestInfo, answer: Growing): void {
    if (isCollection(info)) this.#atWork.set(answer, keyOf(info));
  }

  /** Its answer is over. */
  ended(answer: Growing): void {
    const key = this.#atWork.get(answer);
    if (key === undefined) return;
    this.#atWork.delete(answer);
    // A short page does not hide at once how long the whole was.
    const known = this.#bytes.get(key) ?? 0;
    this.#bytes.delete(key);
    this.#bytes.set(key, Math.max(answer.sentBytes, known / 2));
    const [oldest] = this.#bytes.keys();
    if (this.#bytes.size > MAX_REMEMBERED && oldest !== undefined) this.#bytes.delete(oldest);
  }
}

/** Whether a watch begins with all there is: until that is told it is a list. */
export function beginsWithState({ query }: RequestInfo): boolean {
  const at = query.get("resourceVersion") ?? "";
  return at === "" || at === "0" || flag(query, "sendInitialEvents") === true;
}

function isCollection({ verb, resource, query }: RequestInfo): boolean {
  if (resource === "" || (verb !== "list" && verb !== "watch")) return false;
  return !/(^|,)metadata\.name=/.test(query.get("fieldSelector") ?? "");
}

function keyOf({ group, resource, namespace }: RequestInfo): string {
  return `${group}/${resource} ${namespace}`;
}
