/**
 * The few named values: keys, tokens, the cluster's identity. Each is written
 * at once, and never again while it stays the same.
 */

import type { Database } from "bun:sqlite";
import * as v from "valibot";
import type { Backing } from "./backing.ts";
import { pack, unpack } from "./packing.ts";
import type { Sums } from "./sums.ts";
import { blob, finite, rowOr, text } from "./row-shapes.ts";
import type { Sealer } from "./seal.ts";

/** What the store lends to its values. */
export interface ValueParts {
  readonly backing: () => Backing;
  readonly sealer: Sealer;
  readonly sums: Sums;
  readonly quarantine: (what: string, value: Uint8Array | undefined) => void;
}

const rowSchema = v.object({ packing: finite, checksum: finite, value: blob });

/** A value as it lies in a database; undefined if there is none, "damaged" if it cannot be believed or opened. */
export function readValue(
  database: Database,
  name: string,
  sealer: Sealer,
  sums: Sums,
): Uint8Array | "damaged" | undefined {
  const found = findRow(database, name);
  if (found === undefined) return undefined;
  const row = rowOr(rowSchema, found);
  if (row === undefined || !sums.holds(row.checksum, row.value, valueText(name, row.packing))) return "damaged";
  return unpack(row, name, sealer) ?? "damaged";
}

const namedSchema = v.object({ ...rowSchema.entries, name: text });

/** What a value is the value of, for its sum. */
export function valueText(name: string, packing: number): string {
  return `${name}\n${packing}`;
}

function findRow(database: Database, name: string): unknown {
  return database.query("SELECT packing, checksum, value FROM kept_values WHERE name = ?").get(name) ?? undefined;
}

/** All rows of values that look like one. */
export function valueRows(database: Database) {
  const rows = database.query("SELECT name, packing, checksum, value FROM kept_values").all();
  return rows.flatMap((row) => rowOr(namedSchema, row) ?? []);
}

/** Within a transaction: sums all values anew; one that is damaged stays so. */
export function resumValues(database: Database, sums: { readonly from: Sums; readonly to: Sums }): void {
  for (const { name, packing, checksum, value } of valueRows(database)) {
    const summed = valueText(name, packing);
    if (sums.from.holds(checksum, value, summed))
      database.query("UPDATE kept_values SET checksum = ? WHERE name = ?").run(sums.to.of(value, summed), name);
  }
}

/** The store's named values. */
export class Values {
  constructor(private readonly parts: ValueParts) {}

  get(name: string): Uint8Array | undefined {
    const { sealer, sums } = this.parts;
    const backing = this.parts.backing();
    return backing.read(
      () => {
        const value = readValue(backing.database, name, sealer, sums);
        if (value !== "damaged") return value;
        this.parts.quarantine(`value ${name}`, rowOr(rowSchema, findRow(backing.database, name))?.value);
        this.#delete(name);
        return undefined;
      },
      () => undefined,
    );
  }

  put(name: string, value: Uint8Array, isSecret: boolean): void {
    const before = this.get(name);
    if (before !== undefined && Buffer.from(before).equals(value)) return;
    const backing = this.parts.backing();
    const { packing, value: packed } = pack(value, name, { sealer: isSecret ? this.parts.sealer : undefined });
    backing.write(
      () =>
        void backing.database
          .query("INSERT OR REPLACE INTO kept_values (name, packing, checksum, value) VALUES (?, ?, ?, ?)")
          .run(name, packing, this.parts.sums.of(packed, valueText(name, packing)), packed),
    );
  }

  delete(name: string): void {
    if (this.get(name) !== undefined) this.#delete(name);
  }

  /** Names that begin with this, in order. */
  names(prefix: string): string[] {
    const backing = this.parts.backing();
    const query = "SELECT name FROM kept_values WHERE substr(name, 1, ?) = ? ORDER BY name";
    return backing.read(
      () =>
        backing.database
          .query(query)
          .values(prefix.length, prefix)
          .flatMap(([name]) => (typeof name === "string" ? [name] : [])),
      () => [],
    );
  }

  #delete(name: string): void {
    const backing = this.parts.backing();
    backing.write(() => void backing.database.query("DELETE FROM kept_values WHERE name = ?").run(name));
  }
}
