/**
 * A root file system that is not ours to live in: an image that is being built,
 * or this machine itself.
 *
 * Every path is the target's own. Symbolic links are followed as they would be
 * on the target, inside the tree: an absolute one starts again at its root, and
 * `..` ends there. So no link in an image leads a builder's root user into the
 * builder's own files, and nothing of the target is ever run.
 *
 * Not guarded against: somebody who changes the tree while it is worked on.
 */

import {
  chmodSync,
  closeSync,
  createReadStream,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { writeFileAtomically } from "../../base/atomic-file.ts";
import { EdgeError } from "../../base/errors.ts";

/** The tree is not what it must be; nothing was done with what is named. */
export class RootTreeError extends EdgeError {
  override readonly name = "RootTreeError";
  readonly code = "ROOT_TREE";
}

/** As many as the kernel follows. */
const MAX_LINKS = 40;
const CHUNK_BYTES = 2 ** 20;

/** What a path is, without following it. */
export type Kind = "file" | "folder" | "link" | "other";

/** One root file system; what is written is listed as it happens. */
export class RootTree {
  readonly #onChange: (word: "wrote" | "linked" | "removed", path: string) => void;

  /**
   * @param directory of the builder that is the target's "/".
   * @param onChange hears each change, by the target's path.
   * @throws {RootTreeError} when it is no root file system.
   */
  constructor(
    readonly directory: string,
    onChange: (word: "wrote" | "linked" | "removed", path: string) => void = () => undefined,
  ) {
    this.#onChange = onChange;
    if (!existsSync(directory) || !statSync(directory).isDirectory())
      throw new RootTreeError(`Cannot use root "${directory}": there is no such folder`);
    for (const folder of ["/etc", "/usr"])
      if (this.kind(folder) === undefined)
        throw new RootTreeError(`Cannot use root "${directory}": it holds no ${folder}, so it is no root file system`);
  }

  /** The builder's path of a target's path, every link on the way followed inside the tree. */
  place(path: string): string {
    return this.#walk(path, true);
  }

  /** What stands at a path, the last link not followed; undefined for nothing. */
  kind(path: string): Kind | undefined {
    const stat = lstatSync(this.#walk(path, false), { throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    if (stat.isSymbolicLink()) return "link";
    if (stat.isDirectory()) return "folder";
    return stat.isFile() ? "file" : "other";
  }

  /** Whether there is something behind the path, links followed. */
  has(path: string): boolean {
    return existsSync(this.place(path));
  }

  /** A file's bytes; undefined where there is none. */
  read(path: string): Buffer | undefined {
    const place = this.place(path);
    return existsSync(place) && statSync(place).isFile() ? readFileSync(place) : undefined;
  }

  /** Names in a folder, sorted; none where there is no folder. */
  list(path: string): string[] {
    const place = this.place(path);
    return existsSync(place) && statSync(place).isDirectory() ? readdirSync(place).sort() : [];
  }

  /** Writes a file, old or new and never half; nothing is done where it is so already. @returns whether it changed. */
  write(path: string, content: string | Uint8Array, mode: number, folderMode = 0o755): boolean {
    const bytes = Buffer.from(content as string);
    const place = this.#placeToWrite(path, mode, folderMode, (present) => readFileSync(present).equals(bytes));
    if (place === undefined) return false;
    writeFileAtomically(place, bytes, mode);
    chmodSync(place, mode);
    this.#onChange("wrote", path);
    return true;
  }

  /** The same with a large file of the builder's, by chunks. @returns whether it changed. */
  async copy(from: string, path: string, mode: number): Promise<boolean> {
    const wanted = await digestOf(from);
    const present = this.place(path);
    const isSame = existsSync(present) && (await digestOf(present)) === wanted;
    const place = this.#placeToWrite(path, mode, 0o755, () => isSame);
    if (place === undefined) return false;
    const temporary = `${place}.holdfast-new`;
    rmSync(temporary, { force: true });
    copySynced(from, temporary, mode);
    renameSync(temporary, place);
    this.#onChange("wrote", path);
    return true;
  }

  /** Makes a symbolic link, as `systemctl enable` does. @returns whether it changed. */
  link(path: string, target: string): boolean {
    const place = this.#walk(path, false);
    if (this.kind(path) === "link" && readlinkSync(place) === target) return false;
    mkdirSync(dirname(place), { recursive: true, mode: 0o755 });
    rmSync(place, { force: true });
    symlinkSync(target, place);
    this.#onChange("linked", path);
    return true;
  }

  /** Removes a file, a link (not what it leads to) or a folder with all in it. @returns whether there was something. */
  remove(path: string): boolean {
    if (this.kind(path) === undefined) return false;
    rmSync(this.#walk(path, false), { recursive: true, force: true });
    this.#onChange("removed", path);
    return true;
  }

  /** The place of a file that must be written; undefined where it is already as wanted. */
  #placeToWrite(
    path: string,
    mode: number,
    folderMode: number,
    isSame: (present: string) => boolean,
  ): string | undefined {
    const place = this.place(path);
    const stat = lstatSync(place, { throwIfNoEntry: false });
    if (stat !== undefined && !stat.isFile())
      throw new RootTreeError(`Cannot write ${path} in root "${this.directory}": something that is no file is there`);
    if (stat !== undefined && (stat.mode & 0o7777) === mode && isSame(place)) return undefined;
    mkdirSync(dirname(place), { recursive: true, mode: folderMode });
    return place;
  }

  #walk(path: string, followsLast: boolean): string {
    const pending = partsOf(path);
    const at: string[] = [];
    for (let links = 0; pending.length > 0;) {
      const part = pending.shift()!;
      if (part === "..") {
        at.pop();
        continue;
      }
      const here = join(this.directory, ...at, part);
      const isLink = lstatSync(here, { throwIfNoEntry: false })?.isSymbolicLink() === true;
      if (!isLink || (pending.length === 0 && !followsLast)) {
        at.push(part);
        continue;
      }
      links += 1;
      if (links > MAX_LINKS)
        throw new RootTreeError(`Cannot follow ${path} in root "${this.directory}": its links lead round in a circle`);
      const target = readlinkSync(here);
      if (target.startsWith("/")) at.length = 0;
      pending.unshift(...partsOf(target));
    }
    return join(this.directory, ...at);
  }
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

function copySynced(from: string, to: string, mode: number): void {
  const source = openSync(from, "r");
  const target = openSync(to, "wx", mode);
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (let count = readSync(source, chunk); count > 0; count = readSync(source, chunk))
      for (let at = 0; at < count;) at += writeSync(target, chunk, at, count - at);
    fsyncSync(target);
  } finally {
    closeSync(source);
    closeSync(target);
  }
  chmodSync(to, mode);
}
