/**
 * Files that are old or new, never half.
 */

import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/**
 * Writes a file beside its place, syncs it, moves it there and syncs the folder.
 *
 * @param mode of the file; the folder is made with 0700 if it is missing.
 * @throws the system's error; the old file then stands untouched.
 */
export function writeFileAtomically(path: string, content: string | Uint8Array, mode: number): void {
  const folder = dirname(path);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}.new`;
  try {
    // A leftover of a killed process may carry another mode: never written into.
    rmSync(temporary, { force: true });
    const file = openSync(temporary, "wx", mode);
    try {
      const bytes = Buffer.from(content as string);
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncFolder(folder);
}

/** Makes the move itself survive a power cut. Some file systems cannot sync a folder; the file is in place all the same. */
function syncFolder(folder: string): void {
  let directory: number | undefined;
  try {
    directory = openSync(folder, "r");
    fsyncSync(directory);
  } catch {
    // Nothing is left to be undone here.
  } finally {
    if (directory !== undefined) closeSync(directory);
  }
}
