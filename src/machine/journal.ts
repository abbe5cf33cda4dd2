/**
 * What stood before a node was adopted, on disk before anything is changed.
 *
 * Written whole at each turn, so that whoever was killed in between finds the
 * last turn and every file as it was: its bytes and mode, or that it was not
 * there. Nothing is ever taken over what was first written down.
 */

import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { writeFileAtomically } from "../base/atomic-file.ts";
import { EdgeError } from "../base/errors.ts";
import { placeOf, type Machine } from "./machine.ts";
import { CONFIG_FILE } from "./places.ts";

const CONFIG_DIR = dirname(CONFIG_FILE);

/** The journal is there and cannot be read: nobody knows what stood before. */
export class JournalError extends EdgeError {
  override readonly name = "JournalError";
  readonly code = "JOURNAL";
}

const schema = v.object({
  version: v.literal(1),
  phase: v.picklist(["adopting", "adopted", "reverting", "reverted"]),
  files: v.array(
    v.object({ path: v.string(), before: v.nullable(v.object({ base64: v.string(), mode: v.number() })) }),
  ),
  /** Folders that were not there, the inner ones last. */
  folders: v.array(v.string()),
  /** Units that were enabled already. */
  enabled: v.array(v.string()),
});

/** What is written down. */
export type Journal = v.InferOutput<typeof schema>;

/** Where it lies. */
export function journalPath(stateDir: string): string {
  return join(stateDir, "adopt.json");
}

/** The journal of a state folder; undefined where there is none. @throws {JournalError} */
export function readJournal(stateDir: string): Journal | undefined {
  const path = journalPath(stateDir);
  if (!existsSync(path)) return undefined;
  try {
    return v.parse(schema, JSON.parse(readFileSync(path, "utf8")));
  } catch {
    throw new JournalError(
      `Cannot read "${path}": it is damaged; "sh /usr/local/lib/holdfast/bypass.sh --revert" puts kubelet back without it`,
    );
  }
}

/** Puts it on disk. */
export function writeJournal(stateDir: string, journal: Journal): Journal {
  writeFileAtomically(journalPath(stateDir), `${JSON.stringify(journal, undefined, 2)}\n`, 0o600);
  return journal;
}

/** How these files, and the folders above them, stand now. */
export function captured(machine: Machine, paths: readonly string[]): Pick<Journal, "files" | "folders"> {
  const folders = new Set<string>();
  for (const path of paths)
    for (let at = dirname(path); at !== "/" && !existsSync(placeOf(machine, at)); at = dirname(at)) folders.add(at);
  return {
    files: paths.map((path) => {
      const place = placeOf(machine, path);
      if (!existsSync(place)) return { path, before: null };
      const base64 = readFileSync(place).toString("base64");
      return { path, before: { base64, mode: statSync(place).mode & 0o7777 } };
    }),
    folders: [...folders].sort((a, b) => a.length - b.length),
  };
}

/** Writes a file of the system; folders that are missing are made for everybody to read, our own for root, as the unit has it. */
export function put(machine: Machine, path: string, text: string | Uint8Array, mode: number): void {
  const place = placeOf(machine, path);
  mkdirSync(dirname(place), { recursive: true, mode: dirname(path) === CONFIG_DIR ? 0o700 : 0o755 });
  writeFileAtomically(place, text, mode);
}

/** Puts one file back as it was. */
export function putBack(machine: Machine, { path, before }: Journal["files"][number]): void {
  if (before === null) rmSync(placeOf(machine, path), { force: true });
  else put(machine, path, Buffer.from(before.base64, "base64"), before.mode);
}

/** Removes folders that were not there, where nothing else has come into them. */
export function removeFolders(machine: Machine, { folders }: Journal): void {
  for (const folder of folders.toReversed()) {
    try {
      rmdirSync(placeOf(machine, folder));
    } catch {
      // Gone already, or somebody else's by now.
    }
  }
}
