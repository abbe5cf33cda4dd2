/**
 * Whether an answer is the API server's word, told by the answer itself.
 *
 * What stands in the way of a cut node (an ingress without a backend, a
 * firewall, a hotel's portal, a login page) answers too, with the codes that
 * mean most: 401, 403, 404, 302, and 200 with a page of its own. So nothing is
 * believed for its code:
 *
 *   refusal   a Kubernetes Status, whichever its format: only this takes anything back
 *   answer    2xx of the asked format and kind: only this is kept
 *   unsaid    the API server's, but no word about what was asked: logs, a pod's
 *             own pages behind `proxy`, 304, "404 page not found" for a group that
 *             is not there, 429 in plain text, a panic. Passed on; nothing follows
 *   foreign   all else: as good as a lost link
 *
 * What neither form nor kind can tell is told by the header Audit-ID, which
 * kube-apiserver sets in its outermost filter and so on every answer. It lets
 * pass and proves nothing more: never a refusal, never an answer to be kept.
 *
 * Source: k8s.io/apiserver config.go DefaultBuildHandlerChain, audit_init.go,
 * timeout.go (its 504 is a Status without kind), with_retry_after.go,
 * not_found_handler.go; kube-openapi handler3 (redirects to the current hash).
 */

import { Remembered } from "../base/remembered.ts";
import { MalformedError } from "./codec.ts";
import { BACKSLASH, CLOSE_BRACE, CLOSE_BRACKET, OPEN_BRACE, OPEN_BRACKET, QUOTE, isWhitespace } from "./json-scan.ts";
import { MAGIC, readTypeMeta, readVarint } from "./protobuf-wire.ts";
import { mediaType } from "./representation.ts";

/** Whose word an answer is. */
export type Word = "answer" | "refusal" | "unsaid" | "foreign";

/** What kind of answer a request asks for. */
export type AskedForm =
  /** One object, a list, or a write's answer; `groupVersion` is "" where the answer may be of another. */
  | {
      readonly form: "object";
      readonly groupVersion: string;
      readonly isList: boolean;
    }
  | { readonly form: "watch" | "discovery" | "version" | "openapi" | "keys" }
  /** Whatever it is: logs, metrics, health, what pods answer behind `proxy`. */
  | { readonly form: "free" };

/** An answer, as far as it has come. */
export interface AnswerStart {
  readonly status: number;
  /** By lower-case name. */
  readonly header: (name: string) => string | null | undefined;
  /** First bytes of the body, not compressed. */
  readonly start: Uint8Array;
  /** Whether that is all of it. */
  readonly isWhole: boolean;
}

/** So many bytes of a body always tell; a custom resource may have members of its own before kind and apiVersion. */
export const TELLING_BYTES = 65_536;

const DISCOVERY_KINDS: ReadonlySet<string> = new Set([
  "APIVersions",
  "APIGroup",
  "APIGroupList",
  "APIResourceList",
  "APIGroupDiscoveryList",
]);
const FREE: AskedForm = { form: "free" };

const remembered = new Remembered<AskedForm>(256, 1_024);

/** What kind of answer a request asks for; `target` is path and query. */
export function askedForm(method: string, target: string): AskedForm {
  return method === "GET" ? remembered.of(target, formOfGet) : formAsked(method, target);
}

function formOfGet(target: string): AskedForm {
  return formAsked("GET", target);
}

function formAsked(method: string, target: string): AskedForm {
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  const [, root, ...segments] = path.split("/");
  const isCore = root === "api";
  const rest = isCore ? segments.slice(1) : root === "apis" ? segments.slice(2) : [];
  if (rest.length === 0 || rest[0] === "") return formOfPath(path);
  if (rest[0] === "proxy" || !METHODS.has(method)) return FREE;
  if (rest[0] === "watch") return { form: "watch" };
  const isInside = rest[0] === "namespaces" && rest.length > 2 && !/^(status|finalize)$/.test(rest[2]!);
  const [, name = "", subresource = ""] = isInside ? rest.slice(2) : rest;
  if (FREE_SUBRESOURCES.has(subresource)) return FREE;
  const isList = method === "GET" && name === "";
  if (isList && mark >= 0 && isWatch(target.slice(mark + 1))) return { form: "watch" };
  // A delete is answered with the object or a Status of v1, a subresource with a kind of any group.
  const isOther = subresource !== "" || method === "DELETE";
  const groupVersion = isOther ? "" : segments.slice(0, isCore ? 1 : 2).join("/");
  return { form: "object", groupVersion, isList };
}

const METHODS: ReadonlySet<string> = new Set(["GET", "POST", "PUT", "PATCH", "DELETE"]);
const FREE_SUBRESOURCES: ReadonlySet<string> = new Set(["proxy", "log", "exec", "attach", "portforward"]);

function isWatch(query: string): boolean {
  if (!query.includes("watch")) return false;
  const value = new URLSearchParams(query).get("watch")?.toLowerCase();
  return value !== undefined && value !== "false" && value !== "0";
}

function formOfPath(path: string): AskedForm {
  if (/^\/version\/?$/.test(path)) return { form: "version" };
  if (/^\/(api|apis)(\/[^/]+)?\/?$/.test(path) || /^\/apis\/[^/]+\/[^/]+\/?$/.test(path)) return { form: "discovery" };
  if (/^\/openapi\/v[23](\/.*)?$/.test(path)) return { form: "openapi" };
  return /^\/(openid\/v1\/jwks|\.well-known\/openid-configuration)$/.test(path) ? { form: "keys" } : FREE;
}

/**
 * Judges an answer.
 *
 * @returns undefined when more of the body must be seen; never for one that is
 *   whole or has `TELLING_BYTES`.
 */
export function whoseWord(asked: AskedForm, answer: AnswerStart): Word | undefined {
  const { status, start, isWhole } = answer;
  const isSigned = (answer.header("audit-id") ?? "") !== "";
  const type = mediaType(answer.header("content-type") ?? "");
  const passed: Word = isSigned ? "unsaid" : "foreign";
  if (status === 304) return "unsaid";
  if (status >= 300 && status < 400) return mayRedirect(asked) ? passed : "foreign";
  // Priority and fairness, and a server that is stopping; a balancer's 429 does no harm either.
  if (status === 429 && type === "text/plain") return "unsaid";
  // Go's own server, before any filter: a head that it cannot read.
  if ((status === 400 || status === 431) && (type === "text/plain" || type === "")) return "unsaid";
  // A watch's first event may be long in coming: its reader judges the rest.
  if (asked.form === "watch" && status === 200) return isKubernetesType(type) ? "answer" : "foreign";
  if (asked.form === "free" && status < 300) return isSigned || type !== "text/html" ? "unsaid" : "foreign";
  const isEnough = isWhole || start.length >= TELLING_BYTES;
  // An object says what it is in its first line; a megabyte of it need not be walked for that.
  const told = read(start, type, asked.form === "object" && status < 300);
  if (told === undefined) return passed;
  if (told.isOpen && !isEnough && !isTold(asked, told, status)) return undefined;
  if (status >= 400) {
    if (told.kind === "Status" && told.apiVersion !== undefined) return "refusal";
    return passed;
  }
  return fits(asked, told, type) ? "answer" : passed;
}

/** Only a version document proves that an API server is there. */
export function isVersionDocument(body: Uint8Array): boolean {
  const told = read(body, "application/json");
  return told !== undefined && ["major", "minor", "gitVersion"].every((name) => told.members.has(name));
}

/** What the beginning of a body says of itself. */
interface Told {
  readonly kind: string | undefined;
  readonly apiVersion: string | undefined;
  /** Top-level members seen so far. */
  readonly members: ReadonlySet<string>;
  /** More may come. */
  readonly isOpen: boolean;
}

const NOTHING_YET: Told = {
  kind: undefined,
  apiVersion: undefined,
  members: new Set(),
  isOpen: true,
};

/**
 * @param stopsAtKind kind and apiVersion tell all: what stands behind them is not looked at.
 * @returns undefined for bytes that are nothing an API server writes.
 */
function read(start: Uint8Array, type: string, stopsAtKind = false): Told | undefined {
  if (start.length === 0) return NOTHING_YET;
  if (start[0] === MAGIC[0]) return readProtobuf(start);
  if (type === "application/yaml") return readYaml(start);
  if (type === "application/cbor") return readCbor(start);
  if (type.includes("proto-openapi")) return { ...NOTHING_YET, members: new Set(["openapi"]), isOpen: false };
  return readJson(start, stopsAtKind);
}

/** TypeMeta is the envelope's first field. */
function readProtobuf(start: Uint8Array): Told | undefined {
  if (!MAGIC.every((byte, i) => i >= start.length || start[i] === byte)) return undefined;
  const from = MAGIC.length + 1;
  try {
    const size = start[MAGIC.length] === 0x0a ? readVarint(start, from) : undefined;
    if (start.length > MAGIC.length && start[MAGIC.length] !== 0x0a) return undefined;
    if (size === undefined || size.next + size.value > start.length) return NOTHING_YET;
    return {
      ...readTypeMeta(start, size.next, size.next + size.value),
      members: new Set(),
      isOpen: false,
    };
  } catch (error) {
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}

function readYaml(start: Uint8Array): Told | undefined {
  const text = Buffer.from(start).toString("latin1");
  const member = (name: string) => new RegExp(`^${name}: *"?([^"\\n]+)"?$`, "m").exec(`${text}\n`)?.[1];
  return {
    kind: member("kind"),
    apiVersion: member("apiVersion"),
    members: new Set(),
    isOpen: true,
  };
}

/** After CBOR's own tag (RFC 8949 section 3.4.6) a map; its short strings, bytes to Kubernetes, have their length in the byte before them. */
function readCbor(start: Uint8Array): Told | undefined {
  if (start[0] !== 0xd9) return undefined;
  const text = Buffer.from(start).toString("latin1");
  const isStatus = /[Dd]kind[Ff]Status/.test(text);
  return {
    kind: isStatus ? "Status" : undefined,
    apiVersion: "",
    members: new Set(),
    isOpen: true,
  };
}

/** Walks the top level of a JSON object that may end anywhere. */
function readJson(start: Uint8Array, stopsAtKind: boolean): Told | undefined {
  const members = new Set<string>();
  let kind: string | undefined;
  let apiVersion: string | undefined;
  const told = (isOpen: boolean): Told => ({ kind, apiVersion, members, isOpen });
  let i = skipSpace(start, 0);
  if (i >= start.length) return NOTHING_YET;
  if (start[i] !== OPEN_BRACE) return undefined;
  i = skipSpace(start, i + 1);
  while (i < start.length && start[i] !== CLOSE_BRACE) {
    if (start[i] !== QUOTE) return undefined;
    const keyEnd = stringEnd(start, i);
    const valueStart = skipSpace(start, skipSpace(start, keyEnd) + 1);
    if (keyEnd < 0 || valueStart >= start.length) return told(true);
    const valueEnd = valueEndOf(start, valueStart);
    const name = textOf(start, i + 1, keyEnd - 1);
    const isText = valueEnd > 0 && start[valueStart] === QUOTE;
    members.add(name);
    if (name === "kind" || name === "apiVersion") {
      const value = isText ? textOf(start, valueStart + 1, valueEnd - 1) : undefined;
      if (name === "kind") kind = value;
      else apiVersion = value;
      if (stopsAtKind && kind !== undefined && apiVersion !== undefined) return told(true);
    }
    if (valueEnd < 0) return told(true);
    const next = skipSpace(start, valueEnd);
    i = skipSpace(start, next + (start[next] === 0x2c ? 1 : 0));
  }
  return told(i >= start.length);
}

function skipSpace(bytes: Uint8Array, from: number): number {
  let i = from;
  while (i < bytes.length && isWhitespace(bytes[i]!)) i++;
  return i;
}

/** The index after the closing quote of the string at `open`; -1 when it does not end. */
function stringEnd(bytes: Uint8Array, open: number): number {
  for (let i = open + 1; i < bytes.length; i++) {
    if (bytes[i] === BACKSLASH) i++;
    else if (bytes[i] === QUOTE) return i + 1;
  }
  return -1;
}

/** The index after any value; -1 when it does not end. */
function valueEndOf(bytes: Uint8Array, from: number): number {
  let depth = 0;
  for (let i = from; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (byte === QUOTE) {
      i = stringEnd(bytes, i) - 1;
      if (i < 0) return -1;
      if (depth === 0) return i + 1;
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth++;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      if (depth === 0) return i;
      if (--depth === 0) return i + 1;
    } else if (depth === 0 && (byte === 0x2c || isWhitespace(byte))) return i;
  }
  return -1;
}

function textOf(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString("utf8");
}

/** Whether a body that goes on has said enough. */
function isTold(asked: AskedForm, { kind, apiVersion, members }: Told, status: number): boolean {
  if (kind !== undefined && apiVersion !== undefined) return true;
  if (status >= 400 || asked.form === "version") return false;
  // A list of custom resources has its kind behind its items.
  if (asked.form === "object") return apiVersion !== undefined && members.has("items");
  return asked.form === "discovery" ? kind !== undefined : members.size > 0;
}

function mayRedirect({ form }: AskedForm): boolean {
  return form === "free" || form === "openapi";
}

const KUBERNETES_TYPES: ReadonlySet<string> = new Set(
  ["json", "yaml", "cbor", "cbor-seq", "vnd.kubernetes.protobuf"].map((name) => `application/${name}`),
);

function isKubernetesType(type: string): boolean {
  return KUBERNETES_TYPES.has(type);
}

function fits(asked: AskedForm, told: Told, type: string): boolean {
  const { kind, apiVersion, members } = told;
  const has = (...names: readonly string[]) => names.some((name) => members.has(name));
  switch (asked.form) {
    case "version":
      return ["major", "minor", "gitVersion"].every((name) => members.has(name));
    case "discovery":
      return kind !== undefined && DISCOVERY_KINDS.has(kind);
    case "openapi":
      return has("swagger", "openapi", "paths");
    case "keys":
      return has("keys", "issuer");
    case "object":
      if (!isKubernetesType(type)) return false;
      if (type === "application/cbor") return true;
      if (kind === undefined && told.isOpen) return apiVersion !== undefined && isOf(asked.groupVersion, apiVersion);
      return (
        kind !== undefined &&
        apiVersion !== undefined &&
        isOf(asked.groupVersion, apiVersion) &&
        (!asked.isList || kind === "Table" || kind.endsWith("List"))
      );
    default:
      return false;
  }
}

function isOf(groupVersion: string, apiVersion: string): boolean {
  return groupVersion === "" || apiVersion === groupVersion || apiVersion.startsWith("meta.k8s.io/");
}
