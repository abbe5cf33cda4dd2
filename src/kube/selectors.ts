/**
 * Label and field selectors, decided on an item's own bytes.
 *
 * A list or watch with selectors can be cut out of one without, if we decide
 * exactly as the API server does. What is not understood here, down to the
 * last character, is `undefined`: then the API server is asked, in whose hands
 * the error message lies too.
 *
 *   a, !a                  the key is there, is not there
 *   a=b, a==b, a in (b,c)  the key is there with one of these values
 *   a!=b, a notin (b,c)    it is not: true also where the key is absent
 *   a>1, a<1               the key is there with a smaller or larger integer
 *
 * Fields differ from labels: an absent one is "" (or "false"), only = and !=
 * exist, and each resource names the few that may be asked for.
 *
 * Source: k8s.io/apimachinery pkg/labels/selector.go and pkg/fields/selector.go;
 * fields per resource from k8s.io/kubernetes pkg/apis/core/v1/conversion.go and
 * the strategies' ToSelectableFields; field numbers from k8s.io/api
 * core/v1/generated.proto.
 */

import type { Item } from "./codec.ts";
import { parseText } from "./json-scan.ts";
import { fieldsOf, fieldText } from "./protobuf-wire.ts";

/** What a list or watch selects among the objects of one resource. */
export interface Selection {
  /** Selects everything: no selector and no namespace. */
  readonly isAll: boolean;
  /** Every requirement only leaves something out (`!a`, `a!=b`, `notin`): most objects pass. */
  readonly isBroad: boolean;
  /** An object may come to match, or cease to, while it lives; not so for names and namespaces. */
  readonly mayChange: boolean;
  /** It can be decided on the metadata alone. */
  readonly isOfMetadata: boolean;
  /** @throws {MalformedError} on bytes that are no object. */
  matches(item: Item, format: "json" | "protobuf"): boolean;
}

/** Where to select, and by what; the selectors as they stand in the query. */
export interface SelectionRequest {
  readonly group: string;
  readonly resource: string;
  /** "" for all. */
  readonly namespace: string;
  readonly fieldSelector: string;
  readonly labelSelector: string;
}

/** One term: a key or a field, and what its value must be; undefined where a label is absent. */
export interface Requirement {
  readonly key: string;
  /** In one spelling: two terms with the same text ask the same. */
  readonly text: string;
  readonly isBroad: boolean;
  isMet(value: string | undefined): boolean;
}

/** Where a field stands in an object; numbers by message, as in generated.proto. */
interface FieldPlace {
  readonly path: readonly string[];
  readonly numbers: readonly number[];
  readonly isBoolean?: true;
}

const NAME = "metadata.name";
const NAMESPACE = "metadata.namespace";

/** Spec is 2 and status 3 in all of these. */
const FIELDS: Readonly<Record<string, Readonly<Record<string, FieldPlace>>>> = {
  "/pods": {
    "spec.restartPolicy": { path: ["spec", "restartPolicy"], numbers: [2, 3] },
    "spec.serviceAccountName": { path: ["spec", "serviceAccountName"], numbers: [2, 8] },
    "spec.nodeName": { path: ["spec", "nodeName"], numbers: [2, 10] },
    "spec.hostNetwork": { path: ["spec", "hostNetwork"], numbers: [2, 11], isBoolean: true },
    "spec.schedulerName": { path: ["spec", "schedulerName"], numbers: [2, 19] },
    "status.phase": { path: ["status", "phase"], numbers: [3, 1] },
    "status.podIP": { path: ["status", "podIP"], numbers: [3, 6] },
    "status.nominatedNodeName": { path: ["status", "nominatedNodeName"], numbers: [3, 11] },
  },
  "/services": {
    "spec.clusterIP": { path: ["spec", "clusterIP"], numbers: [2, 3] },
    "spec.type": { path: ["spec", "type"], numbers: [2, 4] },
  },
  "/secrets": { type: { path: ["type"], numbers: [3] } },
  "/nodes": { "spec.unschedulable": { path: ["spec", "unschedulable"], numbers: [2, 4], isBoolean: true } },
};

/** Cluster-scoped kinds with a list of fields of their own, which leaves the namespace out. */
const WITHOUT_NAMESPACE: ReadonlySet<string> = new Set(["/nodes", "/namespaces"]);

/** The selection, or undefined when a selector is wrong or not known here to the last detail. */
export function selectionOf(request: SelectionRequest): Selection | undefined {
  const { group, resource, namespace } = request;
  const labels = parseLabelSelector(request.labelSelector);
  const fields = parseFieldSelector(request.fieldSelector);
  if (labels === undefined || fields === undefined) return undefined;
  const kind = `${group}/${resource}`;
  const inObject: { readonly requirement: Requirement; readonly place: FieldPlace }[] = [];
  const inMeta: Requirement[] = [];
  for (const requirement of fields) {
    // The key is the client's text: "constructor" is no field.
    const known = FIELDS[kind];
    const place = known !== undefined && Object.hasOwn(known, requirement.key) ? known[requirement.key] : undefined;
    if (requirement.key === NAME || (requirement.key === NAMESPACE && !WITHOUT_NAMESPACE.has(kind)))
      inMeta.push(requirement);
    else if (place !== undefined) inObject.push({ requirement, place });
    else return undefined;
  }
  const places = inObject.map(({ place }) => place);
  const mayChange = labels.length + inObject.length > 0;
  return {
    isAll: namespace === "" && labels.length + fields.length === 0,
    isBroad: namespace === "" && [...labels, ...fields].every(({ isBroad }) => isBroad),
    mayChange,
    isOfMetadata: inObject.length === 0,
    matches({ meta, bytes }, format) {
      if (namespace !== "" && meta.namespace !== namespace) return false;
      if (!inMeta.every(({ key, isMet }) => isMet(key === NAME ? meta.name : meta.namespace))) return false;
      if (!mayChange) return true;
      const read = format === "json" ? readJson(bytes, places) : readProtobuf(bytes, places);
      return (
        labels.every(({ key, isMet }) => isMet(read.labels.get(key))) &&
        inObject.every(({ requirement }, index) => requirement.isMet(read.fields[index]))
      );
    },
  };
}

/** The label selector in one spelling, which asks the same; as it is when it is not one. */
export function canonicalLabelSelector(selector: string): string {
  return canonical(parseLabelSelector(selector)) ?? selector;
}

/** The field selector in one spelling, which asks the same; as it is when it is not one. */
export function canonicalFieldSelector(selector: string): string {
  return canonical(parseFieldSelector(selector)) ?? selector;
}

/** Whether whatever meets the narrower selectors meets the wider ones too, as far as their terms tell: each of the wider is one of the narrower. */
export function isSelectedWithin(
  narrower: Pick<SelectionRequest, "fieldSelector" | "labelSelector">,
  wider: Pick<SelectionRequest, "fieldSelector" | "labelSelector">,
): boolean {
  return (
    isPartOf(parseLabelSelector(wider.labelSelector), parseLabelSelector(narrower.labelSelector)) &&
    isPartOf(parseFieldSelector(wider.fieldSelector), parseFieldSelector(narrower.fieldSelector))
  );
}

function canonical(requirements: readonly Requirement[] | undefined): string | undefined {
  return requirements === undefined ? undefined : [...new Set(requirements.map(({ text }) => text))].sort().join(",");
}

function isPartOf(part: readonly Requirement[] | undefined, whole: readonly Requirement[] | undefined): boolean {
  if (part === undefined || whole === undefined) return false;
  const texts = new Set(whole.map(({ text }) => text));
  return part.every(({ text }) => texts.has(text));
}

// ---- labels ----

const QUALIFIED_NAME =
  /^(?:(?=.{1,253}\/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\/)?(?=[^/]{1,63}$)[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const LABEL_VALUE = /^(?:(?=.{1,63}$)[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/;
/** A word, or a symbol; only the four bytes that Go's lexer calls whitespace part them. */
const TOKEN = /[ \t\r\n]*(==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+)/y;
const SYMBOL = /^(?:==|!=|[=!(),<>])$/;

/** The requirements of a label selector, all of which must hold; undefined when it is not one. */
export function parseLabelSelector(text: string): readonly Requirement[] | undefined {
  const tokens = tokensOf(text);
  if (tokens === undefined) return undefined;
  const requirements: Requirement[] = [];
  let at = 0;
  while (at < tokens.length) {
    if (requirements.length > 0 && tokens[at++] !== ",") return undefined;
    const parsed = labelRequirement(tokens, at);
    if (parsed === undefined) return undefined;
    requirements.push(parsed.requirement);
    at = parsed.next;
  }
  return requirements;
}

function tokensOf(text: string): readonly string[] | undefined {
  if (text.includes("\0")) return undefined;
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const trimmed = text.replace(/[ \t\r\n]+$/, "");
  while (TOKEN.lastIndex < trimmed.length) {
    const match = TOKEN.exec(trimmed);
    if (match === null) return undefined;
    tokens.push(match[1]!);
  }
  return tokens;
}

const isWord = (token: string | undefined): token is string => token !== undefined && !SYMBOL.test(token);

function labelRequirement(
  tokens: readonly string[],
  from: number,
): { readonly requirement: Requirement; readonly next: number } | undefined {
  const isNot = tokens[from] === "!";
  let at = isNot ? from + 1 : from;
  const key = tokens[at++];
  if (!isWord(key) || !QUALIFIED_NAME.test(key)) return undefined;
  const operator = tokens[at];
  if (operator === undefined || operator === ",") {
    const isMet = isNot
      ? (value: string | undefined) => value === undefined
      : (value: string | undefined) => value !== undefined;
    return { requirement: { key, text: isNot ? `!${key}` : key, isBroad: isNot, isMet }, next: at };
  }
  if (isNot) return undefined;
  at++;
  let values: readonly string[];
  if (operator === "in" || operator === "notin") {
    const close = tokens.indexOf(")", at);
    const listed = tokens[at] === "(" && close > 0 ? membersOf(tokens.slice(at + 1, close)) : undefined;
    if (listed === undefined) return undefined;
    values = listed;
    at = close + 1;
  } else {
    const operand = tokens[at];
    values = [isWord(operand) ? operand : ""];
    if (isWord(operand)) at++;
    else if (operand !== undefined && operand !== ",") return undefined;
  }
  if (!values.every((value) => LABEL_VALUE.test(value))) return undefined;
  const test = testOf(key, operator, values);
  return test === undefined ? undefined : { requirement: { key, ...test }, next: at };
}

/** What stands between the parentheses; an empty place is the empty value. */
function membersOf(tokens: readonly string[]): readonly string[] | undefined {
  const members = [""];
  for (const token of tokens) {
    if (token === ",") members.push("");
    else if (!isWord(token) || members.at(-1) !== "") return undefined;
    else members[members.length - 1] = token;
  }
  return members;
}

function testOf(key: string, operator: string, values: readonly string[]): Omit<Requirement, "key"> | undefined {
  const set = new Set(values);
  const list = `(${[...set].sort().join(",")})`;
  switch (operator) {
    case "=":
    case "==":
    case "in":
      return {
        text: set.size === 1 ? `${key}=${values[0]!}` : `${key} in ${list}`,
        isBroad: false,
        isMet: (value) => value !== undefined && set.has(value),
      };
    case "!=":
    case "notin":
      return {
        text: set.size === 1 ? `${key}!=${values[0]!}` : `${key} notin ${list}`,
        isBroad: true,
        isMet: (value) => value === undefined || !set.has(value),
      };
    case "<":
    case ">": {
      const bound = integerOf(values[0]!);
      if (bound === undefined) return undefined;
      const isMet = (value: string | undefined) => {
        const number = value === undefined ? undefined : integerOf(value);
        return number !== undefined && (operator === ">" ? number > bound : number < bound);
      };
      return { text: `${key}${operator}${bound}`, isBroad: false, isMet };
    }
    default:
      return undefined;
  }
}

/** As Go's ParseInt(text, 10, 64). */
function integerOf(text: string): bigint | undefined {
  if (!/^[+-]?[0-9]+$/.test(text)) return undefined;
  const number = BigInt(text.replace(/^\+/, ""));
  return BigInt.asIntN(64, number) === number ? number : undefined;
}

// ---- fields ----

/** The requirements of a field selector; undefined when it is not one. Which fields exist is another matter. */
export function parseFieldSelector(text: string): readonly Requirement[] | undefined {
  const requirements: Requirement[] = [];
  for (const term of text.match(/(?:\\[\s\S]|[^,\\])+|\\$/g) ?? []) {
    // The first operator counts, and != before ==.
    const match = /^([\s\S]*?)(!=|==|=)([\s\S]*)$/.exec(term);
    if (match === null) return undefined;
    const [, key = "", operator, escaped = ""] = match;
    if (key === "") return undefined;
    if (!/^(?:\\[\\,=]|[^\\,=])*$/.test(escaped)) return undefined;
    const wanted = escaped.replace(/\\([\s\S])/g, "$1");
    const isEqual = operator !== "!=";
    const text = `${key}${isEqual ? "=" : "!="}${wanted.replace(/[\\,=]/g, "\\$&")}`;
    requirements.push({ key, text, isBroad: !isEqual, isMet: (value) => (value === wanted) === isEqual });
  }
  return requirements;
}

// ---- reading ----

interface ReadFields {
  readonly labels: ReadonlyMap<string, string>;
  /** In the order of the places asked for. */
  readonly fields: readonly string[];
}

function readJson(bytes: Uint8Array, places: readonly FieldPlace[]): ReadFields {
  const object = parseText(bytes);
  const labels = jsonAt(object, ["metadata", "labels"]);
  return {
    labels: new Map(
      typeof labels === "object" && labels !== null
        ? Object.entries(labels).map(([key, value]): [string, string] => [key, String(value)])
        : [],
    ),
    fields: places.map(({ path, isBoolean }) => {
      const value = jsonAt(object, path);
      return isBoolean ? String(value === true) : typeof value === "string" ? value : "";
    }),
  };
}

function jsonAt(object: unknown, path: readonly string[]): unknown {
  let value = object;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/** ObjectMeta is 1, its labels 11, each an entry of key 1 and value 2. */
function readProtobuf(bytes: Uint8Array, places: readonly FieldPlace[]): ReadFields {
  const labels = new Map<string, string>();
  const fields = places.map(({ isBoolean }): string => (isBoolean ? "false" : ""));
  for (const top of fieldsOf(bytes)) {
    if (top.number === 1 && top.wireType === 2) {
      for (const entry of fieldsOf(bytes, top.start, top.end)) {
        if (entry.number !== 11 || entry.wireType !== 2) continue;
        const pair = ["", ""];
        for (const half of fieldsOf(bytes, entry.start, entry.end))
          if (half.wireType === 2 && half.number <= 2) pair[half.number - 1] = fieldText(bytes, half);
        labels.set(pair[0]!, pair[1]!);
      }
    }
    places.forEach(({ numbers, isBoolean }, index) => {
      if (numbers[0] !== top.number) return;
      const inner = numbers.length === 1 ? [top] : top.wireType === 2 ? fieldsOf(bytes, top.start, top.end) : [];
      for (const field of inner) {
        if (field.number !== numbers.at(-1)) continue;
        if (isBoolean && field.wireType === 0) fields[index] = String(field.value !== 0);
        else if (!isBoolean && field.wireType === 2) fields[index] = fieldText(bytes, field);
      }
    });
  }
  return { labels, fields };
}
