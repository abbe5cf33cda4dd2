/**
 * What the API server was seen to allow a caller to write.
 *
 * A write that is answered while cut needs a right, and nobody is there to ask.
 * So each kind of write that went through is remembered for its caller, kept
 * over a restart, and ends with the first refusal; the next success brings it
 * back. A kind is verb, resource, subresource and namespace, and a name where
 * one object alone was proven (RBAC knows resourceNames).
 *
 * Bounded: who was seen longest ago gives way.
 */

import * as v from "valibot";
import { LastRefusals, type AskedBetween } from "../base/asked.ts";
import type { Store } from "../store/contract.ts";

/** A right as RBAC names it. */
export interface Right {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource: string;
  /** "*" for all of them. */
  readonly namespace: string;
  /** One object alone; undefined for any. */
  readonly name?: string;
}

const VALUE_PREFIX = "rights/";
const MAX_PRINCIPALS = 256;
const MAX_RIGHTS = 128;
const MAX_ASKED = 1_024;
const rightsSchema = v.array(v.string());

/** Remembers rights. */
export class SeenRights {
  #rights = new Map<string, Set<string>>();
  #asked = new Set<string>();
  /** By caller and kind. */
  readonly #last = new LastRefusals();

  constructor(private readonly store: Store) {
    for (const name of store.valueNames(VALUE_PREFIX)) {
      const read = readRights(store.getValue(name));
      if (read === undefined) store.deleteValue(name);
      else this.#rights.set(name.slice(VALUE_PREFIX.length), new Set(read));
    }
  }

  /** Whether this write, or a kind that it belongs to, was seen to be allowed. */
  has(principal: string, right: Right): boolean {
    const known = this.#rights.get(principal);
    return known !== undefined && widened(right).some((wider) => known.has(textOf(wider)));
  }

  /** Whether it is worth a question, which is then asked: once for each while this process runs. */
  isToAsk(principal: string, right: Right): boolean {
    const question = `${principal} ${textOf(right)}`;
    if (this.#asked.has(question)) return false;
    if (this.#asked.size >= MAX_ASKED) this.#asked.clear();
    this.#asked.add(question);
    return true;
  }

  /** The API server answered such a write: 2xx allows it, 403 ends it. @param asked when it was sent. */
  heard(principal: string, right: Right, status: number, asked: AskedBetween): void {
    if (status >= 200 && status < 300) this.allowed(principal, right, asked);
    else if (status === 403) this.refused(principal, right);
  }

  /** The API server has said yes to this. @param asked when: a refusal since counts more. */
  allowed(principal: string, right: Right, asked: AskedBetween): void {
    if (this.has(principal, right) || this.#last.outdate(`${principal}\n${kindOf(right)}`, asked)) return;
    let known = this.#rights.get(principal);
    if (known === undefined) {
      if (this.#rights.size >= MAX_PRINCIPALS) this.#drop(this.#rights.keys().next().value!);
      this.#rights.set(principal, (known = new Set()));
    }
    if (known.size >= MAX_RIGHTS) known.delete(known.values().next().value!);
    known.add(textOf(right));
    this.#save(principal, known);
  }

  /** The API server has said no to this. What was believed ends with all of its verb and resource; to what never was nothing is lost. */
  refused(principal: string, right: Right): void {
    this.#last.note(`${principal}\n${kindOf(right)}`);
    const known = this.#rights.get(principal);
    if (known === undefined || !this.has(principal, right)) return;
    const kind = kindOf(right);
    for (const text of known) if (text.startsWith(kind)) known.delete(text);
    if (known.size === 0) this.#drop(principal);
    else this.#save(principal, known);
  }

  #save(principal: string, known: ReadonlySet<string>): void {
    this.store.putValue(VALUE_PREFIX + principal, Buffer.from(JSON.stringify([...known])));
  }

  #drop(principal: string): void {
    this.#rights.delete(principal);
    this.store.deleteValue(VALUE_PREFIX + principal);
  }
}

/** A right and every wider one that would do. */
function widened({ name, ...right }: Right): Right[] {
  const wider = [right, { ...right, namespace: "*" }];
  return name === undefined ? wider : [{ ...right, name }, ...wider];
}

function textOf(right: Right): string {
  return `${kindOf(right)} ${JSON.stringify([right.namespace, right.name ?? null])}`;
}

function kindOf({ verb, group, resource, subresource }: Right): string {
  return JSON.stringify([verb, group, resource, subresource]);
}

function readRights(bytes: Uint8Array | undefined): string[] | undefined {
  try {
    return v.parse(rightsSchema, JSON.parse(Buffer.from(bytes ?? []).toString("utf8")));
  } catch {
    return undefined;
  }
}
