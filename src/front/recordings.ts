/**
 * Whole answers, kept and given again as they were.
 *
 * An answer is kept under what it is, not under what was asked: the path in
 * one spelling and the form it came in. So it answers every client that can
 * read that form, however its own request is written: another order of
 * preference, an unknown parameter, an escape too many.
 *
 *   objects     json, protobuf, json;Table;v1, ...; yaml and cbor as they came
 *   documents   the media type with its parameters: discovery is kept plain and
 *               aggregated, OpenAPI v2 as JSON and as protobuf
 *
 * A document's own parameters stay in its name: the hash behind /openapi/v3
 * tells clients what they may keep for ever.
 *
 * Source: kube-openapi pkg/handler (media types), discovery/aggregated
 * (`as=APIGroupDiscoveryList`).
 */

import { MalformedError } from "../kube/codec.ts";
import { openEnvelope } from "../kube/protobuf-wire.ts";
import { documentForm, mediaType, readableDocuments, readableForms } from "../kube/representation.ts";
import type { ResponseKey, Store, StoredResponse } from "../store/contract.ts";
import type { Exchange } from "./exchange.ts";
import type { RequestInfo } from "./request-info.ts";

/** Resources whose bodies are sealed on disk. */
const SECRET_RESOURCES: ReadonlySet<string> = new Set(["secrets"]);
/** They change how an answer is reached or laid out, not what it says. */
const NOT_IN_NAME: ReadonlySet<string> = new Set(["resourceVersion", "timeout", "pretty"]);
const JSON_TYPE = "application/json";

/** What was kept last is remembered as it came: nearly every answer is the same again, and need not be copied and read for that. */
const MAX_REMEMBERED = 64;
const MAX_REMEMBERED_BYTES = 16 * 1024;

/** Records answers and finds them. */
export class Recordings {
  readonly #last = new Map<string, { readonly key: ResponseKey; readonly response: StoredResponse }>();

  constructor(
    private readonly store: Store,
    private readonly nowMs: () => number,
    /** An object's body with what lies over it while cut. */
    private readonly laidOver: (info: RequestInfo, body: Uint8Array) => Uint8Array = (_, body) => body,
  ) {}

  /** The recorded answer that this client can read, in the form it likes best. */
  find(exchange: Exchange, info: RequestInfo, principal: string): StoredResponse | undefined {
    for (const form of readable(exchange, info)) {
      const found = this.store.getResponse(keyOf(info, principal, form));
      if (found !== undefined) return this.shown(info, found);
      // JSON is YAML.
      const json = form === "yaml" ? this.store.getResponse(keyOf(info, principal, "json")) : undefined;
      if (json !== undefined) return { ...json, headers: { ...json.headers, "content-type": "application/yaml" } };
    }
    return undefined;
  }

  /** An answer as it reads while cut: what was laid over its object meanwhile belongs to it. */
  shown(info: RequestInfo, response: StoredResponse): StoredResponse {
    const isJson = mediaType(response.headers["content-type"] ?? "") === JSON_TYPE;
    return isJson && info.resource !== "" ? { ...response, body: this.laidOver(info, response.body) } : response;
  }

  /** Records an answer of 200. */
  keep(
    exchange: Exchange,
    info: RequestInfo,
    principal: string,
    { headers, body }: Pick<StoredResponse, "headers" | "body">,
  ): void {
    const contentType = headers["content-type"] ?? "";
    const key = keyOf(
      info,
      principal,
      info.resource === "" ? documentOf(exchange, contentType) : formOf(contentType, body),
    );
    const isSecret = SECRET_RESOURCES.has(info.resource);
    const response = { status: 200, headers, body, storedAtMs: this.nowMs() };
    this.store.putResponse(key, response, { isSecret });
    if (isSecret || body.length > MAX_REMEMBERED_BYTES) return;
    if (this.#last.size >= MAX_REMEMBERED) this.#last.clear();
    this.#last.set(nameOf(exchange, principal), { key, response });
  }

  /** Whether this is what was kept last of the same request: then it is kept anew, as said now. */
  isSame(exchange: Exchange, principal: string, { headers, body }: Pick<StoredResponse, "headers" | "body">): boolean {
    const last = this.#last.get(nameOf(exchange, principal));
    if (last === undefined || Buffer.compare(last.response.body, body) !== 0) return false;
    const known = last.response.headers;
    for (const name in headers) if (headers[name] !== known[name]) return false;
    for (const name in known) if (!(name in headers)) return false;
    this.store.putResponse(last.key, { ...last.response, storedAtMs: this.nowMs() }, { isSecret: false });
    return true;
  }

  /** Forgets the recordings of what this request is about, in every form. */
  forget(principal: string, info: RequestInfo): void {
    this.store.deleteResponsesForPath(principal, info.canonicalPath);
  }
}

function nameOf(exchange: Exchange, principal: string): string {
  return `${principal}\n${exchange.target}\n${exchange.header("accept") ?? ""}`;
}

function keyOf(info: RequestInfo, principal: string, form: string): ResponseKey {
  const { canonicalPath, query, resource } = info;
  if (resource !== "") {
    const included = query.get("includeObject") ?? "Metadata";
    const isPlain = included === "Metadata" || !form.includes(";Table;");
    return { principal, target: canonicalPath, accept: isPlain ? form : `${form};includeObject=${included}` };
  }
  const text = [...query]
    .filter(([name]) => !NOT_IN_NAME.has(name))
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .join("&");
  return { principal, target: text === "" ? canonicalPath : `${canonicalPath}?${text}`, accept: form };
}

function readable(exchange: Exchange, { resource }: RequestInfo): readonly string[] {
  const accept = exchange.header("accept");
  return resource === "" ? readableDocuments(accept) : readableForms(accept);
}

/** What is answered whatever was asked for (keys are no JSON by their type) is found again by whoever asks alike. */
function documentOf(exchange: Exchange, contentType: string): string {
  const form = documentForm(contentType);
  const asked = readableDocuments(exchange.header("accept"));
  return asked.includes(form) ? form : (asked[0] ?? form);
}

/** The form of an object's answer: a Table or metadata alone say so themselves, and first of all. */
function formOf(contentType: string, body: Uint8Array): string {
  const type = mediaType(contentType);
  if (type === "application/yaml") return "yaml";
  if (type === "application/cbor") return "cbor";
  const format = type === JSON_TYPE ? "json" : "protobuf";
  const { kind, apiVersion } = format === "json" ? jsonTypeMeta(body) : protobufTypeMeta(body);
  const [group, version] = apiVersion.split("/");
  const isOther = group === "meta.k8s.io" && (kind === "Table" || kind === "PartialObjectMetadata");
  return isOther ? `${format};${kind};${version}` : format;
}

function jsonTypeMeta(body: Uint8Array): { readonly kind: string; readonly apiVersion: string } {
  const start = Buffer.from(body.buffer, body.byteOffset, Math.min(body.length, 200)).toString("latin1");
  const [, kind = "", apiVersion = ""] = /^\s*\{\s*"kind":\s*"([^"]*)",\s*"apiVersion":\s*"([^"]*)"/.exec(start) ?? [];
  return { kind, apiVersion };
}

function protobufTypeMeta(body: Uint8Array): { readonly kind: string; readonly apiVersion: string } {
  try {
    return openEnvelope(body, 0, body.length);
  } catch (error) {
    if (error instanceof MalformedError) return { kind: "", apiVersion: "" };
    throw error;
  }
}
