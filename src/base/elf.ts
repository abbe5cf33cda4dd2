/**
 * What an ELF executable or library asks of the system it is started on: its
 * loader and the libraries it names.
 *
 * An image with a library too few is found out when a cluster starts it; this
 * finds it out when it is built, for foreign machines too.
 *
 * Source: the System V ABI, chapters 4 and 5 (section and program headers, dynamic section).
 */

/** What a file asks for. */
export interface Needs {
  readonly machine: "amd64" | "arm64";
  /** Path of the loader; undefined for a library. */
  readonly loader: string | undefined;
  /** File names of libraries, in the order of the file. */
  readonly libraries: readonly string[];
}

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: number;
  readonly sizeBytes: number;
}

const MACHINES: Readonly<Record<number, Needs["machine"]>> = { 62: "amd64", 183: "arm64" };
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NEEDED = 1;
const DT_STRTAB = 5;

/**
 * Reads a 64-bit little-endian ELF file.
 *
 * @throws if it is anything else.
 */
export function needsOf(file: Uint8Array, path: string): Needs {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  const isElf = bytes.subarray(0, 6).equals(Buffer.of(0x7f, 0x45, 0x4c, 0x46, 2, 1));
  const machine = isElf ? MACHINES[bytes.readUInt16LE(18)] : undefined;
  if (machine === undefined) throw new Error(`Cannot read "${path}": no ELF file for amd64 or arm64`);
  const segments = segmentsOf(bytes);
  const loader = segments.find(({ type }) => type === PT_INTERP);
  return {
    machine,
    loader: loader === undefined ? undefined : textAt(bytes, loader.offset),
    libraries: librariesOf(bytes, segments),
  };
}

/**
 * Where a section stands; undefined where there is none of that name.
 *
 * @throws if it is no 64-bit ELF file.
 */
export function sectionOf(
  file: Uint8Array,
  name: string,
): { readonly address: bigint; readonly offset: number } | undefined {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  const start = Number(bytes.readBigUInt64LE(40));
  const [size, count, namesAt] = [bytes.readUInt16LE(58), bytes.readUInt16LE(60), bytes.readUInt16LE(62)];
  if (count === 0) return undefined;
  const names = Number(bytes.readBigUInt64LE(start + namesAt * size + 24));
  const at = Array.from({ length: count }, (_, index) => start + index * size).find(
    (header) => textAt(bytes, names + bytes.readUInt32LE(header)) === name,
  );
  return at === undefined
    ? undefined
    : { address: bytes.readBigUInt64LE(at + 16), offset: Number(bytes.readBigUInt64LE(at + 24)) };
}

function segmentsOf(bytes: Buffer): Segment[] {
  const start = Number(bytes.readBigUInt64LE(32));
  const [size, count] = [bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  return Array.from({ length: count }, (_, index) => start + index * size).map((at) => ({
    type: bytes.readUInt32LE(at),
    offset: Number(bytes.readBigUInt64LE(at + 8)),
    address: Number(bytes.readBigUInt64LE(at + 16)),
    sizeBytes: Number(bytes.readBigUInt64LE(at + 32)),
  }));
}

function librariesOf(bytes: Buffer, segments: readonly Segment[]): string[] {
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  if (dynamic === undefined) return [];
  const entries = Array.from({ length: dynamic.sizeBytes / 16 }, (_, index) => dynamic.offset + index * 16).map(
    (at) => ({ tag: Number(bytes.readBigUInt64LE(at)), value: Number(bytes.readBigUInt64LE(at + 8)) }),
  );
  const table = entries.find(({ tag }) => tag === DT_STRTAB)?.value ?? 0;
  // The table is named by its address in memory; the segment that is loaded there says where it stands in the file.
  const home = segments.find(
    ({ type, address, sizeBytes }) => type === PT_LOAD && table >= address && table < address + sizeBytes,
  );
  if (home === undefined) return [];
  const offset = home.offset + table - home.address;
  return entries.filter(({ tag }) => tag === DT_NEEDED).map(({ value }) => textAt(bytes, offset + value));
}

function textAt(bytes: Buffer, offset: number): string {
  return bytes.toString("latin1", offset, bytes.indexOf(0, offset));
}
