/**
 * `holdfast cache`: look into what is kept.
 *
 * Reads the database itself, after asking a running daemon to commit what it
 * holds; so it works on a node whose daemon does not. Secrets' data are left
 * out, in every form of output, unless --show-secrets asks for them.
 */

import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { formatSize } from "../base/units.ts";
import { ConfigError } from "../config/config-error.ts";
import { loadPlaces } from "../config/places.ts";
import { codecFor } from "../kube/representation.ts";
import type { Item } from "../kube/codec.ts";
import type { Copy } from "../store/contract.ts";
import { openStore, type SqliteStore } from "../store/store.ts";
import { askStatus } from "./ask-status.ts";
import { CACHE_FLAGS } from "./flag-table.ts";
import { readFlags, repeated, UsageError } from "./flags.ts";
import { complain, jsonText, print, table, writeOut } from "./terminal.ts";
import { withIsoTimes } from "./times.ts";
import { scopeName, shortPrincipal } from "./words.ts";

const FLUSH_PATIENCE_MS = 5_000;

/** What is asked of the cache. */
interface Asked {
  readonly action: "ls" | "get" | "verify";
  readonly operands: readonly string[];
  readonly output: string | undefined;
  readonly showsSecrets: boolean;
  /** The flags that say where, to be repeated in hints. */
  readonly given: string;
}

/** Runs ls, get or verify. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, CACHE_FLAGS);
  const { output, "show-secrets": showsSecrets = false, ...where } = values;
  const asked = { ...checked(positionals, output), showsSecrets, given: repeated(where) };
  let places: ReturnType<typeof loadPlaces>;
  try {
    places = loadPlaces(
      { stateDir: values["state-dir"], config: values.config, adminSocket: values["admin-socket"] },
      process.env,
    );
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return sorry(error.message, "Name the folder with --state-dir DIR");
  }
  const { stateDir, adminSocketPath } = places;
  if (adminSocketPath !== undefined) await commitQueued(adminSocketPath);
  const obstacle = obstacleTo(stateDir, asked);
  return obstacle === undefined ? look(stateDir, asked) : sorry(...obstacle);
}

/** @throws {UsageError} */
function checked(
  [action, ...operands]: readonly string[],
  output: string | undefined,
): Pick<Asked, "action" | "operands" | "output"> {
  if (action !== "ls" && action !== "get" && action !== "verify")
    throw new UsageError(
      action === undefined ? "Say ls, get or verify" : `Unknown action '${action}'; expected ls, get or verify`,
    );
  const outputs = action === "get" ? ["json", "raw"] : action === "ls" ? ["json"] : [];
  if (output !== undefined && !outputs.includes(output))
    throw new UsageError(
      `Unknown output '${output}' for ${action}${outputs.length === 0 ? "" : `; expected ${outputs.join(" or ")}`}`,
    );
  if (operands.length > (action === "get" ? 2 : 0)) throw new UsageError(`Unexpected argument '${operands.at(-1)}'`);
  if (action === "get" && operands.length < 2)
    throw new UsageError("Name a resource and an object: get RESOURCE[.GROUP] [NAMESPACE/]NAME");
  return { action, operands, output };
}

function look(stateDir: string, asked: Asked): number {
  let store: SqliteStore;
  try {
    store = openStore({
      stateDir,
      clock: systemClock,
      log: silentLog,
      maxBytes: Number.MAX_SAFE_INTEGER,
      isReadOnly: true,
    });
  } catch (error) {
    return sorry(
      `"${join(stateDir, "cache.db")}" cannot be opened: ${(error as Error).message}`,
      "See: journalctl -u holdfast -n 50; the daemon sets a damaged file aside when it starts",
    );
  }
  try {
    if (asked.action === "ls") return list(store, asked.output);
    return asked.action === "verify" ? verify(store, asked.given) : get(store, asked);
  } finally {
    store.close();
  }
}

function sorry(problem: string, next: string): number {
  complain(`holdfast cache: ${problem}`);
  complain(next);
  return 1;
}

/** Lets a running daemon write what it holds, and says so when it holds everything. */
async function commitQueued(path: string): Promise<void> {
  if (!existsSync(path)) return;
  await fetch("http://holdfast/v1/flush", {
    method: "POST",
    unix: path,
    signal: AbortSignal.timeout(FLUSH_PATIENCE_MS),
  } as RequestInit).catch(() => {});
  const answer = await askStatus(path);
  if (answer.isFine && answer.report.store.mode === "memory")
    complain(
      `holdfast cache: the daemon works from memory (${answer.report.store.reason}); what follows is what was on disk before`,
    );
}

/** Why a folder cannot be looked into, and the next step. */
function obstacleTo(stateDir: string, { action, operands, given }: Asked): readonly [string, string] | undefined {
  const again = ["holdfast", "cache", action, ...operands].join(" ") + given;
  try {
    accessSync(join(stateDir, "cache.db"), constants.R_OK);
  } catch (error) {
    if ((error as { code?: string }).code === "EACCES")
      return [`this user may not read "${stateDir}"`, `Try: sudo ${again}`];
    return [`nothing is kept in "${stateDir}"`, "Name the folder with --state-dir DIR"];
  }
  // Without its key every sealed row would look damaged, and opening the store would make a new key in the folder.
  const { CREDENTIALS_DIRECTORY: credentials = "" } = process.env;
  if (
    existsSync(join(stateDir, "keys", "seal.key")) ||
    (credentials !== "" && existsSync(join(credentials, "holdfast-seal-key")))
  )
    return undefined;
  return [
    `the sealing key of "${stateDir}" is not in its folder; it is a credential of the service, or was lost with its process`,
    `Try: sudo CREDENTIALS_DIRECTORY=/run/credentials/holdfast.service ${again}`,
  ];
}

function list(store: SqliteStore, output: string | undefined): number {
  const scopes = store.copies().map((copy) => ({
    ...copy.identity,
    ...copy.size(),
    resourceVersion: copy.listed?.resourceVersion ?? "",
    lastContactMs: copy.listed?.lastContactMs ?? 0,
  }));
  const answers = store.listResponses();
  if (output === "json") {
    print(jsonText(withIsoTimes({ scopes, answers })));
    return 0;
  }
  print(
    table(
      ["RESOURCE", "NAMESPACE", "CALLER", "FORM", "ITEMS", "SIZE", "RESOURCEVERSION"],
      scopes.map((scope) => [
        scopeName(scope),
        scope.namespace || "(all)",
        shortPrincipal(scope.principal),
        scope.representation,
        String(scope.items),
        formatSize(scope.bytes),
        scope.resourceVersion,
      ]),
    ),
  );
  print("");
  print(
    table(
      ["ANSWER", "CALLER", "SIZE", "KEPT AT"],
      answers.map(({ key, sizeBytes, storedAtMs }) => [
        key.target,
        shortPrincipal(key.principal),
        formatSize(sizeBytes),
        new Date(storedAtMs).toISOString(),
      ]),
    ),
  );
  return 0;
}

function get(store: SqliteStore, { operands, output, showsSecrets, given }: Asked): number {
  const [kind = "", name = ""] = operands;
  const [resource = "", ...group] = kind.split(".");
  const slash = name.indexOf("/");
  const [namespace, plain] = slash < 0 ? ["", name] : [name.slice(0, slash), name.slice(slash + 1)];
  let found: { copy: Copy; item: Item } | undefined;
  for (const copy of store.copies()) {
    if (copy.identity.resource !== resource || (group.length > 0 && copy.identity.group !== group.join("."))) continue;
    const item = copy.get(namespace, plain);
    // The newest contact wins; plain objects are preferred to tables.
    if (item !== undefined && (found === undefined || rank(copy) > rank(found.copy))) found = { copy, item };
  }
  if (found === undefined) {
    return sorry(
      `no ${kind} "${name}" is kept`,
      `See: holdfast cache ls${given}; an object in a namespace is named NAMESPACE/NAME`,
    );
  }
  const { shape, contentType } = found.copy.listed!;
  const body = codecFor(contentType)!.single(shape, found.item.bytes);
  const isJson = contentType === "application/json";
  const isSecret = resource === "secrets" && !showsSecrets;
  if (isSecret && !isJson)
    return sorry(
      "this Secret is kept as protobuf and cannot be printed in part",
      "Print it whole with --show-secrets -o raw",
    );
  if (isSecret && output === "raw")
    return sorry("the bytes of a Secret hold its data", "Print them with --show-secrets, or leave -o raw out");
  if (output === "raw") writeOut(body);
  else if (isJson)
    print(JSON.stringify(isSecret ? redacted(body) : JSON.parse(Buffer.from(body).toString("utf8")), undefined, 2));
  else
    print(
      `# kept as ${contentType}, ${body.length} bytes, base64; -o raw prints the bytes\n${Buffer.from(body).toString("base64")}`,
    );
  return 0;
}

function rank({ listed }: Copy): number {
  return (listed?.lastContactMs ?? 0) + (listed?.shape.listKind === "Table" ? 0 : 1e15);
}

/** A Secret without its data; of a Table, each row's object. */
function redacted(body: Uint8Array): unknown {
  const document = JSON.parse(Buffer.from(body).toString("utf8")) as Record<string, unknown>;
  const rows = Array.isArray(document["rows"]) ? (document["rows"] as { object?: Record<string, unknown> }[]) : [];
  for (const object of [document, ...rows.map((row) => row.object)])
    if (object !== undefined && object !== null) redact(object);
  return document;
}

function redact(object: Record<string, unknown>): void {
  for (const field of ["data", "stringData"]) {
    const values = object[field];
    if (values !== null && typeof values === "object")
      object[field] = Object.fromEntries(
        Object.entries(values).map(([key, value]) => [
          key,
          `(${String(value).length} characters, shown with --show-secrets)`,
        ]),
      );
  }
  // kubectl apply keeps a copy of the data in an annotation.
  const annotations = (object["metadata"] as { annotations?: Record<string, string> | null } | undefined)?.annotations;
  if (annotations?.["kubectl.kubernetes.io/last-applied-configuration"] !== undefined)
    annotations["kubectl.kubernetes.io/last-applied-configuration"] = "(left out)";
}

function verify(store: SqliteStore, given: string): number {
  const { checked, damaged } = store.verify();
  print(`${checked} rows checked, ${damaged} damaged`);
  if (damaged > 0)
    complain(
      `The daemon sets them aside when it reads them, and lists anew while online. See: holdfast status${given}`,
    );
  return damaged === 0 ? 0 : 1;
}
