/**
 * Folders for the tests of manifests.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { FileTree } from "../../src/manifests/forms.ts";

/** Writes a tree of files. */
export function writeTree(directory: string, files: FileTree): void {
  for (const [path, text] of files) {
    mkdirSync(join(directory, dirname(path)), { recursive: true });
    writeFileSync(join(directory, path), text);
  }
}
