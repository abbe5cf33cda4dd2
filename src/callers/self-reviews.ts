/**
 * What a caller was told it may do, for as long as there is a copy of what
 * that is about.
 *
 * k9s, dashboards and `kubectl auth can-i` ask first whether they may list,
 * and show nothing without a yes. The API server's yes to a caller's question
 * about itself stands while cut as long as what it speaks of is still kept for
 * that caller: a refusal takes the copies away and this with them. Over a
 * restart too. It grants nothing here: what is answered is decided by copies.
 *
 *   SelfSubjectAccessReview  spec = 2 { resourceAttributes = 1 { namespace = 1, group = 3, resource = 5 } }
 *   SelfSubjectRulesReview   spec = 2 { namespace = 1 }
 *
 * Source: k8s.io/api authorization/v1 generated.proto.
 */

import * as v from "valibot";
import { MalformedError } from "../kube/codec.ts";
import { fieldsOf, fieldText, MAGIC, openEnvelope, type Field } from "../kube/protobuf-wire.ts";
import type { Store } from "../store/contract.ts";

/** Which copies a decision speaks of; "" and "*" are any. */
export interface ReviewedCopies {
  readonly group: string;
  readonly resource: string;
  readonly namespace: string;
}

/** Questions of callers about themselves. */
export const SELF_REVIEWS: ReadonlySet<string> = new Set(["selfsubjectaccessreviews", "selfsubjectrulesreviews"]);

const keptSchema = v.object({
  principal: v.string(),
  group: v.string(),
  resource: v.string(),
  namespace: v.string(),
  contentType: v.string(),
  /** In base64. */
  body: v.string(),
});
type Kept = v.InferOutput<typeof keptSchema>;

const VALUE_PREFIX = "self-review/";
const MAX_KEPT = 500;

/** Decisions that stand as long as their copies. */
export class SelfReviews {
  #kept: Map<string, Kept> | undefined;

  constructor(
    private readonly store: Pick<Store, "getValue" | "putValue" | "deleteValue" | "valueNames">,
    private readonly hasCopy: (principal: string, about: ReviewedCopies) => boolean,
  ) {}

  /** Keeps the API server's yes. @param key of the question, as `ReviewMemory` hashes it. */
  keep(
    key: string,
    principal: string,
    question: Uint8Array,
    decision: { readonly contentType: string; readonly body: Uint8Array },
  ): void {
    const about = reviewedCopies(question);
    if (about === undefined) return;
    const kept = this.#all();
    const one = {
      principal,
      ...about,
      contentType: decision.contentType,
      body: Buffer.from(decision.body).toString("base64"),
    };
    const text = JSON.stringify(one);
    if (JSON.stringify(kept.get(key)) === text) return;
    if (!kept.has(key) && kept.size >= MAX_KEPT) this.#makeRoom();
    kept.set(key, one);
    this.store.putValue(VALUE_PREFIX + key, Buffer.from(text));
  }

  /** The API server has said no to the same question since. */
  drop(key: string): void {
    if (this.#all().delete(key)) this.store.deleteValue(VALUE_PREFIX + key);
  }

  /** The decision, while what it speaks of is kept. */
  find(key: string): { readonly contentType: string; readonly body: Uint8Array } | undefined {
    const one = this.#all().get(key);
    if (one === undefined || !this.hasCopy(one.principal, one)) return undefined;
    return { contentType: one.contentType, body: new Uint8Array(Buffer.from(one.body, "base64")) };
  }

  /** Those without copies go first, then the longest known. */
  #makeRoom(): void {
    const kept = this.#all();
    for (const [key, one] of [...kept]) if (!this.hasCopy(one.principal, one)) this.drop(key);
    const [oldest] = kept.keys();
    if (kept.size >= MAX_KEPT && oldest !== undefined) this.drop(oldest);
  }

  #all(): Map<string, Kept> {
    if (this.#kept !== undefined) return this.#kept;
    const kept = new Map<string, Kept>();
    for (const name of this.store.valueNames(VALUE_PREFIX)) {
      const one = readKept(this.store.getValue(name));
      if (one !== undefined && kept.size < MAX_KEPT) kept.set(name.slice(VALUE_PREFIX.length), one);
      else this.store.deleteValue(name);
    }
    this.#kept = kept;
    return kept;
  }
}

function readKept(value: Uint8Array | undefined): Kept | undefined {
  try {
    return v.parse(keptSchema, JSON.parse(Buffer.from(value ?? []).toString("utf8")));
  } catch {
    return undefined;
  }
}

const questionSchema = v.object({
  spec: v.object({
    namespace: v.optional(v.string()),
    resourceAttributes: v.optional(
      v.object({
        namespace: v.optional(v.string()),
        group: v.optional(v.string()),
        resource: v.optional(v.string()),
      }),
    ),
  }),
});

/** What a question is about; undefined for one about paths, or that cannot be read. */
export function reviewedCopies(question: Uint8Array): ReviewedCopies | undefined {
  try {
    return MAGIC.every((byte, i) => question[i] === byte) ? inProtobuf(question) : inJson(question);
  } catch (error) {
    if (error instanceof MalformedError || error instanceof SyntaxError || error instanceof v.ValiError)
      return undefined;
    throw error;
  }
}

function inJson(question: Uint8Array): ReviewedCopies | undefined {
  const { spec } = v.parse(questionSchema, JSON.parse(Buffer.from(question).toString("utf8")));
  const { resourceAttributes: asked } = spec;
  if (asked !== undefined)
    return { group: asked.group ?? "", resource: asked.resource ?? "", namespace: asked.namespace ?? "" };
  return spec.namespace === undefined ? undefined : { group: "*", resource: "*", namespace: spec.namespace };
}

function inProtobuf(question: Uint8Array): ReviewedCopies | undefined {
  const { kind, start, end } = openEnvelope(question, 0, question.length);
  const spec = fieldIn(question, start, end, 2);
  const asked = spec === undefined ? undefined : fieldIn(question, spec.start, spec.end, 1);
  if (asked === undefined) return undefined;
  if (kind === "SelfSubjectRulesReview") return { group: "*", resource: "*", namespace: fieldText(question, asked) };
  const text = (number: number) => {
    const field = fieldIn(question, asked.start, asked.end, number);
    return field === undefined ? "" : fieldText(question, field);
  };
  return { group: text(3), resource: text(5), namespace: text(1) };
}

function fieldIn(bytes: Uint8Array, start: number, end: number, number: number): Field | undefined {
  for (const field of fieldsOf(bytes, start, end)) if (field.number === number && field.wireType === 2) return field;
  return undefined;
}
