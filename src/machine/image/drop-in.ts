/**
 * The file by which a technician tells a device where to join.
 *
 * It is written on a laptop onto the card's FAT partition, so it comes as
 * laptops write: with a byte order mark, in UTF-16, with CRLF, with ".txt"
 * appended, in any case; and with what editors and systems leave beside it
 * (`._holdfast-join.yaml`, `.holdfast-join.yaml.swp`), which holds the same token.
 *
 * Shredded means: written over in place and synced, then unlinked. A card's own
 * wear levelling may keep the old block all the same; the token must be one
 * that ends soon.
 */

import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { EdgeError } from "../../base/errors.ts";

/** A drop-in is there and is no text that could be read. */
export class DropInError extends EdgeError {
  override readonly name = "DropInError";
  readonly code = "DROP_IN";
}

/** Where boot partitions are mounted, in the order in which they are looked at. */
export const BOOT_FOLDERS: readonly string[] = ["/boot/firmware", "/boot", "/boot/efi"];
/** What the file is called. */
export const DROP_IN_NAME = "holdfast-join.yaml";

const IS_DROP_IN = /^holdfast-join\.ya?ml(\.txt)?$/i;
/** What editors and systems leave: the name is in it. */
const IS_TRACE = /holdfast-join\.ya?ml/i;
/** A join file has some hundred bytes. */
const MAX_BYTES = 64 * 1_024;

/** The drop-ins of a folder, the plainest name first; none where there is no such folder. */
export function dropInsIn(folder: string): string[] {
  const plain = (name: string) => (name === DROP_IN_NAME ? 0 : 1);
  return namesIn(folder, IS_DROP_IN)
    .sort((a, b) => plain(a) - plain(b) || (a < b ? -1 : 1))
    .map((name) => join(folder, name));
}

/** The drop-ins and what was left beside them. */
export function tracesIn(folder: string): string[] {
  return namesIn(folder, IS_TRACE).map((name) => join(folder, name));
}

function namesIn(folder: string, pattern: RegExp): string[] {
  try {
    // A link is nobody's drop-in: FAT has none, and elsewhere it would lead the shredder astray.
    return readdirSync(folder).filter((name) => pattern.test(name) && lstatSync(join(folder, name)).isFile());
  } catch {
    return [];
  }
}

/**
 * Reads one as text.
 *
 * @throws {DropInError} in words for the one who wrote it.
 */
export function readDropIn(path: string): string {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { size } = fstatSync(file);
    if (size > MAX_BYTES) throw new DropInError(`${size} bytes are too many for a join file; ${MAX_BYTES} at most`);
    const bytes = Buffer.alloc(size);
    return decoded(bytes.subarray(0, readSync(file, bytes, 0, size, 0)));
  } finally {
    closeSync(file);
  }
}

/** What a laptop wrote, as plain text with plain line ends. @throws {DropInError} */
export function decoded(bytes: Uint8Array): string {
  const text = decoderOf(bytes).decode(bytes).replaceAll(/\r\n?/g, "\n");
  if (text.includes("\0") || text.includes("\ufffd"))
    throw new DropInError("it is no plain text; save it as UTF-8, not as a document of a word processor");
  if (text.trim() === "") throw new DropInError("it is empty");
  return text;
}

function decoderOf(bytes: Uint8Array): TextDecoder {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le");
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder("utf-16be");
  return new TextDecoder("utf-8");
}

/** Writes over a file in place, syncs, and unlinks it. Gone already is no fault. */
export function shred(path: string): void {
  let file: number;
  try {
    file = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  try {
    const bytes = randomBytes(Math.min(fstatSync(file).size, 2 ** 20));
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at, bytes.length - at, at);
    fsyncSync(file);
    ftruncateSync(file);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  unlinkSync(path);
}
