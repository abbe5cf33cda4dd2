/**
 * A JSON Schema of what a command prints, made of the valibot schema that it is
 * read by: the document cannot say anything else than the code.
 *
 * Source: JSON Schema 2020-12. Only the kinds of schemas that our documents are
 * made of are known; another one is a fault of this program.
 */

import type * as v from "valibot";
import { MOMENTS } from "./times.ts";

/** A valibot schema, as far as it is looked into. */
interface Node {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Node>>;
  readonly item?: Node;
  readonly wrapped?: Node;
  readonly options?: readonly unknown[];
  readonly literal?: unknown;
}

/** The schema of a document. Readers ignore fields they do not know: a newer daemon may say more. */
export function jsonSchemaOf(schema: v.GenericSchema, title: string): object {
  return { $schema: "https://json-schema.org/draft/2020-12/schema", title, ...schemaOf(schema as unknown as Node) };
}

function schemaOf(node: Node): object {
  const { type, entries = {}, item, wrapped, options = [], literal } = node;
  switch (type) {
    case "string":
    case "number":
    case "boolean":
      return { type };
    case "literal":
      return { const: literal };
    case "picklist":
      return { enum: options };
    case "optional":
      return schemaOf(wrapped!);
    case "array":
      return { type, items: schemaOf(item!) };
    case "object":
      return objectOf(entries);
    default:
      throw new TypeError(`a document has a field of kind "${type}", which no JSON Schema is made of here`);
  }
}

function objectOf(entries: Readonly<Record<string, Node>>): object {
  const properties = Object.entries(entries).flatMap(([name, entry]): [string, object][] => [
    [name, schemaOf(entry)],
    ...(MOMENTS.has(name) ? [[name.slice(0, -2), { type: "string", format: "date-time" }] as [string, object]] : []),
  ]);
  const required = Object.entries(entries)
    .filter(([, { type }]) => type !== "optional")
    .map(([name]) => name);
  return { type: "object", properties: Object.fromEntries(properties), required };
}
