/**
 * Archives that are the same bytes whenever their contents are: sorted, dated
 * 1970, owned by root.
 *
 * Source: POSIX.1-1988, ustar.
 */

/** One file or folder of an archive. */
export interface TarEntry {
  /** Without a leading slash; folders end in one. */
  readonly path: string;
  /** Of a file. */
  readonly bytes?: Uint8Array;
  /** Default 0755 for folders, 0644 for files. */
  readonly mode?: number;
}

const BLOCK = 512;

/**
 * An archive of these entries and of the folders they stand in.
 *
 * @throws {RangeError} on a path of more than 100 bytes.
 */
export function tarOf(given: readonly TarEntry[]): Buffer {
  const named = new Map(given.map((entry) => [entry.path, entry]));
  for (const { path } of given) {
    const parts = path.replace(/\/$/, "").split("/");
    for (let depth = 1; depth < parts.length; depth++) {
      const folder = `${parts.slice(0, depth).join("/")}/`;
      if (!named.has(folder)) named.set(folder, { path: folder });
    }
  }
  // By code unit, not by language: the order must not depend on the machine.
  const entries = [...named.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  return Buffer.concat([...entries.flatMap(blocksOf), Buffer.alloc(2 * BLOCK)]);
}

function blocksOf({ path, bytes = new Uint8Array(), mode }: TarEntry): Uint8Array[] {
  const isFolder = path.endsWith("/");
  if (Buffer.byteLength(path) > 100) throw new RangeError(`the path ${path} does not fit an archive`);
  const head = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number) =>
    head.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  head.write(path, 0);
  octal(mode ?? (isFolder ? 0o755 : 0o644), 100, 8);
  octal(0, 108, 8); // owner
  octal(0, 116, 8); // group
  octal(bytes.length, 124, 12);
  octal(0, 136, 12); // 1970
  head.fill(" ", 148, 156); // the sum counts its own place as spaces
  head.write(isFolder ? "5" : "0", 156);
  head.write("ustar\u000000", 257, "latin1");
  octal(0, 329, 8); // device numbers
  octal(0, 337, 8);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return [head, bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)];
}
