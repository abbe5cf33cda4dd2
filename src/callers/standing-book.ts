/**
 * Where refusals that stand are kept: one value for each caller, written at
 * once, so that no crash gives back what was refused.
 */

import type { Store } from "../store/contract.ts";
import { nothingStanding, readStanding, standingBytes, type Standing } from "./standing.ts";

/** How a refusal is named where it is looked at again: what kind it is, then which. */
export const KEYS = { whole: "w", collection: "c", object: "o", gone: "g" } as const;

const VALUE_PREFIX = "refusals/";
const MAX_PRINCIPALS = 1_024;

/** Refusals by caller. */
export class StandingBook {
  readonly #standing = new Map<string, Standing>();

  /** @param onGivenUp there are too many callers: of this one nothing is remembered any more. */
  constructor(
    private readonly parts: {
      readonly store: Pick<Store, "valueNames" | "getValue" | "putValue" | "deleteValue">;
      /** Told how many refusals stand. */
      readonly onCount: (standing: number) => void;
    },
    private readonly onGivenUp: (principal: string) => void,
  ) {
    const { store } = parts;
    for (const name of store.valueNames(VALUE_PREFIX)) {
      const read = readStanding(store.getValue(name));
      if (read !== undefined) this.#standing.set(name.slice(VALUE_PREFIX.length), read);
    }
    this.#count();
  }

  /** Callers against whom something stands, or stood. */
  principals(): Iterable<string> {
    return this.#standing.keys();
  }

  /** What stands against a caller, if anything ever did. */
  find(principal: string): Standing | undefined {
    return this.#standing.get(principal);
  }

  /** What stands against a caller, to be changed and then saved. */
  of(principal: string): Standing {
    let standing = this.#standing.get(principal);
    if (standing === undefined) {
      if (this.#standing.size >= MAX_PRINCIPALS) this.#giveUp(this.#standing.keys().next().value!);
      this.#standing.set(principal, (standing = nothingStanding()));
    }
    return standing;
  }

  /** Its refusals as they are looked at again. */
  keysOf(principal: string): string[] {
    const standing = this.#standing.get(principal);
    if (standing === undefined) return [];
    if (standing.whole !== undefined) return [KEYS.whole];
    return [
      ...[...standing.collections.keys()].map((text) => KEYS.collection + text),
      ...[...standing.objects].filter(([, { path }]) => path !== "").map(([object]) => KEYS.object + object),
      ...[...standing.gone.keys()].map((path) => KEYS.gone + path),
    ];
  }

  /** Writes what stands against a caller. */
  save(principal: string): void {
    this.parts.store.putValue(VALUE_PREFIX + principal, standingBytes(this.of(principal)));
    this.#count();
  }

  /** Nothing stands against it any more. */
  forget(principal: string): void {
    this.#standing.delete(principal);
    this.parts.store.deleteValue(VALUE_PREFIX + principal);
    this.#count();
  }

  #giveUp(principal: string): void {
    this.onGivenUp(principal);
    this.forget(principal);
  }

  #count(): void {
    let standing = 0;
    for (const principal of this.#standing.keys()) standing += this.keysOf(principal).length;
    this.parts.onCount(standing);
  }
}
