/**
 * What a guard asks of a silent node's neighbour, and what the neighbour answers.
 *
 * Both are annotations of the neighbour's own Node: the guard writes the
 * question there, the neighbour's node identity the answer, and nobody needs
 * an address of anybody. The nonce binds an answer to its question, so no clock
 * is compared.
 */

import * as v from "valibot";

/** Annotation with the question, JSON of `WitnessQuestion`. */
export const QUESTION_ANNOTATION = "holdfast.dev/listen-for";

/** Annotation with the answer, a compact JWS over `WitnessReport`, signed with the node's key. */
export const REPORT_ANNOTATION = "holdfast.dev/heard";

/** Nodes in one question. */
export const MOST_ASKED = 16;

/** Of a question or a report, in characters. */
export const MOST_CHARACTERS = 16_384;

/** Algorithms of a report's signature, by the kind of key a kubelet may have. */
export const REPORT_ALGORITHMS = ["ES256", "ES384", "RS256", "EdDSA"] as const;

const name = v.pipe(
  v.string(),
  v.maxLength(253),
  v.regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/, "expected a node's name"),
);
const nonce = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{16,64}$/, "expected 16 to 64 characters of base64url"));

const questionSchema = v.object({
  nonce,
  /** When it was asked, ms since the epoch by the guard's clock; nobody else compares it. */
  askedMs: v.number(),
  nodes: v.pipe(
    v.array(
      v.object({
        name,
        address: v.pipe(v.string(), v.maxLength(45)),
        port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
      }),
    ),
    v.minLength(1),
    v.maxLength(MOST_ASKED),
  ),
});
const reportSchema = v.object({
  iss: name,
  nonce,
  nodes: v.pipe(
    v.array(v.object({ name, outcome: v.picklist(["heard", "silent", "not-tried"]) })),
    v.maxLength(MOST_ASKED),
  ),
});

/** Which nodes to listen for, and where. */
export type WitnessQuestion = v.InferOutput<typeof questionSchema>;

/** What was heard. "heard": something answered at the address; "silent": nothing did in time. */
export type WitnessReport = v.InferOutput<typeof reportSchema>;

/** @returns undefined for anything that is no question. */
export function readQuestion(text: string | undefined): WitnessQuestion | undefined {
  return read(questionSchema, text);
}

/** @returns undefined for anything that is no report. */
export function readReport(text: string | undefined): WitnessReport | undefined {
  return read(reportSchema, text);
}

function read<S extends v.GenericSchema>(schema: S, text: string | undefined): v.InferOutput<S> | undefined {
  if (text === undefined || text.length > MOST_CHARACTERS) return undefined;
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}
