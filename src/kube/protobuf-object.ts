/**
 * What an object in protobuf says of itself, as far as a status write of an
 * agent is judged by it.
 *
 *   Pod, Node        metadata = 1, spec = 2, status = 3
 *   ObjectMeta       name = 1, namespace = 3, uid = 5, resourceVersion = 6,
 *                    labels = 11, annotations = 12 (entries { key = 1, value = 2 })
 *   PodStatus        phase = 1, conditions = 2
 *   NodeStatus       phase = 3, conditions = 4
 *   a condition      type = 1, status = 2
 *
 * Source: k8s.io/api/core/v1 generated.proto, apimachinery meta/v1 generated.proto.
 */

import { fieldsOf, fieldText, openEnvelope, type Field } from "./protobuf-wire.ts";

/** An object's metadata and the outline of its status. */
export interface ObjectOutline {
  readonly kind: string;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly phase: string;
  /** "Type=Status", in their order. */
  readonly conditions: readonly string[];
}

/** Reads a Pod or Node. @throws {MalformedError} */
export function readOutline(body: Uint8Array): ObjectOutline {
  const { kind, start, end } = openEnvelope(body, 0, body.length);
  const texts = new Map<number, string>();
  const labels = new Map<string, string>();
  const annotations = new Map<string, string>();
  let phase = "";
  const conditions: string[] = [];
  const [phaseAt, conditionsAt] = kind === "Node" ? [3, 4] : [1, 2];
  for (const field of messages(body, start, end)) {
    if (field.number === 1)
      for (const inner of messages(body, field.start, field.end)) {
        if (inner.number === 11) entry(body, inner, labels);
        else if (inner.number === 12) entry(body, inner, annotations);
        else if (inner.number <= 6) texts.set(inner.number, fieldText(body, inner));
      }
    if (field.number === 3)
      for (const inner of messages(body, field.start, field.end)) {
        if (inner.number === phaseAt) phase = fieldText(body, inner);
        else if (inner.number === conditionsAt) conditions.push(pair(body, inner).join("="));
      }
  }
  const text = (number: number) => texts.get(number) ?? "";
  return {
    kind,
    name: text(1),
    namespace: text(3),
    uid: text(5),
    resourceVersion: text(6),
    labels,
    annotations,
    phase,
    conditions,
  };
}

function* messages(body: Uint8Array, start: number, end: number): Generator<Field> {
  for (const field of fieldsOf(body, start, end)) if (field.wireType === 2) yield field;
}

function entry(body: Uint8Array, field: Field, map: Map<string, string>): void {
  const [key, value] = pair(body, field);
  map.set(key, value);
}

/** The first two texts of a message. */
function pair(body: Uint8Array, field: Field): [string, string] {
  const texts = ["", "", ""];
  for (const inner of messages(body, field.start, field.end))
    if (inner.number <= 2) texts[inner.number] = fieldText(body, inner);
  return [texts[1]!, texts[2]!];
}
