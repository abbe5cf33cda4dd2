/**
 * `holdfast cache`: look into what is kept.
 *
 * Reads the database itself, after asking a running daemon to commit what it
 * holds; so it works on a node whose daemon does not. Secrets' data are left
 * out unless asked for by name.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { DEFAULT_STATE_DIR, socketPath } from "../config.ts";
import { codecFor } from "../kube/representation.ts";
import type { Item } from "../kube/codec.ts";
import type { ScopeRecord } from "../store/contract.ts";
import { openStore, type SqliteStore } from "../store/store.ts";
import { UsageError, complain, print, readFlags, table } from "./command.ts";
import { shortPrincipal } from "./status.ts";

/** Runs ls, get or verify. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, { output: { type: "string", short: "o" }, "state-dir": { type: "string" }, "show-secrets": { type: "boolean" } });
  const stateDir = values["state-dir"] ?? process.env["HOLDFAST_STATE_DIR"] ?? DEFAULT_STATE_DIR;
  const [action, ...rest] = positionals;
  if (action !== "ls" && action !== "get" && action !== "verify") throw new UsageError(action === undefined ? "Say ls, get or verify" : `Unknown action '${action}'; expected ls, get or verify`);
  if (!existsSync(join(stateDir, "cache.db"))) {
    complain(`holdfast cache: nothing is kept in "${stateDir}"`);
    complain("Name the folder with --state-dir DIR");
    return 1;
  }
  await fetch("http://holdfast/v1/flush", { method: "POST", unix: socketPath(stateDir, process.env["HOLDFAST_ADMIN_SOCKET"]) ?? "" } as RequestInit).catch(() => {});
  const store = openStore({ stateDir, clock: systemClock, log: silentLog, maxBytes: Number.MAX_SAFE_INTEGER, isReadOnly: true });
  try {
    if (action === "ls") return list(store, values.output);
    if (action === "verify") return verify(store);
    return get(store, rest, values.output, values["show-secrets"] === true);
  } finally {
    store.close();
  }
}

function list(store: SqliteStore, output: string | undefined): number {
  const scopes = store.scopes().map((scope) => ({ ...scope.identity, ...store.sizeOf(scope.id), resourceVersion: scope.listed?.resourceVersion ?? "", lastContactMs: scope.listed?.lastContactMs ?? 0 }));
  const answers = store.listResponses();
  if (output === "json") {
    print(JSON.stringify({ scopes, answers }, undefined, 2));
    return 0;
  }
  print(table(["RESOURCE", "NAMESPACE", "CALLER", "FORM", "ITEMS", "BYTES", "RESOURCEVERSION"], scopes.map((scope) => [`${scope.resource}${scope.group === "" ? "" : `.${scope.group}`}`, scope.namespace || "(all)", shortPrincipal(scope.principal), scope.representation, String(scope.items), String(scope.bytes), scope.resourceVersion])));
  print("");
  print(table(["ANSWER", "CALLER", "BYTES", "KEPT AT"], answers.map(({ key, sizeBytes, storedAtMs }) => [key.target, shortPrincipal(key.principal), String(sizeBytes), new Date(storedAtMs).toISOString()])));
  return 0;
}

function get(store: SqliteStore, [kind, name]: readonly string[], output: string | undefined, showSecrets: boolean): number {
  if (kind === undefined || name === undefined) throw new UsageError("Name a resource and an object: get RESOURCE[.GROUP] [NAMESPACE/]NAME");
  const [resource = "", ...group] = kind.split(".");
  const slash = name.indexOf("/");
  const [namespace, plain] = slash < 0 ? ["", name] : [name.slice(0, slash), name.slice(slash + 1)];
  let found: { scope: ScopeRecord; item: Item } | undefined;
  for (const scope of store.scopes()) {
    if (scope.identity.resource !== resource || (group.length > 0 && scope.identity.group !== group.join("."))) continue;
    const item = store.getObject(scope.id, namespace, plain);
    // The newest contact wins; plain objects are preferred to tables.
    if (item !== undefined && (found === undefined || rank(scope) > rank(found.scope))) found = { scope, item };
  }
  if (found === undefined) {
    complain(`holdfast cache: no ${kind} "${name}" is kept`);
    complain("See: holdfast cache ls");
    return 1;
  }
  const { shape, contentType } = found.scope.listed!;
  const body = codecFor(contentType)!.single(shape, found.item.bytes);
  const isJson = contentType === "application/json";
  const isSecret = resource === "secrets" && !showSecrets;
  if (isSecret && !isJson) {
    complain("holdfast cache: this Secret is kept as protobuf; print it with --show-secrets -o raw");
    return 1;
  }
  if (output === "raw") process.stdout.write(body);
  else if (isJson) print(JSON.stringify(isSecret ? redacted(body) : JSON.parse(Buffer.from(body).toString("utf8")), undefined, 2));
  else print(`# kept as ${contentType}, ${body.length} bytes, base64; -o raw prints the bytes\n${Buffer.from(body).toString("base64")}`);
  return 0;
}

function rank({ listed }: ScopeRecord): number {
  return (listed?.lastContactMs ?? 0) + (listed?.shape.listKind === "Table" ? 0 : 1e15);
}

function redacted(body: Uint8Array): unknown {
  const object = JSON.parse(Buffer.from(body).toString("utf8")) as Record<string, unknown>;
  for (const field of ["data", "stringData"]) {
    const values = object[field];
    if (values !== null && typeof values === "object") object[field] = Object.fromEntries(Object.entries(values).map(([key, value]) => [key, `(${String(value).length} characters, shown with --show-secrets)`]));
  }
  // kubectl apply keeps a copy of the data in an annotation.
  const annotations = (object["metadata"] as { annotations?: Record<string, string> } | undefined)?.annotations;
  if (annotations?.["kubectl.kubernetes.io/last-applied-configuration"] !== undefined) annotations["kubectl.kubernetes.io/last-applied-configuration"] = "(left out)";
  return object;
}

function verify(store: SqliteStore): number {
  const { checked, damaged } = store.verify();
  print(`${checked} rows checked, ${damaged} damaged`);
  return damaged === 0 ? 0 : 1;
}
