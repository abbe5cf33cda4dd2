/** An executable that is none, for tests of what looks at it as a file. */

/** The frame of an executable as the compiler makes ours; nobody starts it. */
export function executable(arch: "amd64" | "arm64", isStripped = false): Buffer {
  const machine = arch === "amd64" ? 62 : 183;
  const bytes = Buffer.alloc(1_024);
  const loader = machine === 62 ? "/lib64/ld-linux-x86-64.so.2" : "/lib/ld-linux-aarch64.so.1";
  Buffer.of(0x7f, 0x45, 0x4c, 0x46, 2, 1).copy(bytes);
  bytes.writeUInt16LE(machine, 18);
  const [programs, sections, address] = [64, 512, 0x6a22000n];
  bytes.writeBigUInt64LE(BigInt(programs), 32);
  bytes.writeBigUInt64LE(BigInt(sections), 40);
  for (const [at, value] of [
    [54, 56],
    [56, 1],
    [58, 64],
    [60, 3],
    [62, 2],
  ] as const)
    bytes.writeUInt16LE(value, at);
  bytes.writeUInt32LE(3, programs);
  bytes.writeBigUInt64LE(128n, programs + 8);
  bytes.write(`${loader}\0`, 128);
  if (!isStripped) bytes.writeBigUInt64LE(address, 200);
  bytes.write("\0.bun\0", 256);
  for (const [index, name, at, offset] of [
    [1, 1, address, 320n],
    [2, 0, 0n, 256n],
  ] as const) {
    bytes.writeUInt32LE(name, sections + index * 64);
    bytes.writeBigUInt64LE(at, sections + index * 64 + 16);
    bytes.writeBigUInt64LE(offset, sections + index * 64 + 24);
  }
  return bytes;
}
