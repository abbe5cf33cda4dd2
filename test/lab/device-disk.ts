/**
 * A disk that loses power for real: what the machine did not flush may be lost,
 * kept, or torn in the middle of a block.
 *
 * Served over NBD (the fixed newstyle handshake, simple replies) on a unix
 * socket, over an image file that stays as it is. A write is in the cache until
 * the machine flushes or asks for the write itself to be durable (FUA). When
 * the power goes each block that is still in the cache becomes, by a seeded
 * draw, what it was, what it was going to be, or a mix of both by sectors of
 * 512 bytes.
 *
 *   handshake  NBDMAGIC IHAVEOPT flags(2) | client flags(4) | option GO
 *   request    25609513 flags(2) type(2) handle(8) offset(8) length(4) [data]
 *   reply      67446698 error(4) handle(8) [data]
 *
 * Source: the NBD protocol, github.com/NetworkBlockDevice/nbd, doc/proto.md.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";

/** What becomes of a block that was not flushed. */
export type PowerLoss = "forgets" | "tears";

/** Whether a flush means anything: a disk that lies keeps all since the power came in its cache, as a program does that never asks for a flush. */
export type Flushes = "honest" | "lying";

/** What stands over the image, by the number of the block. */
export type Blocks = ReadonlyMap<number, Buffer>;

const BLOCK = 4_096;
const SECTOR = 512;
const REQUEST_BYTES = 28;
const [REQUEST_MAGIC, REPLY_MAGIC] = [0x25609513, 0x67446698];
const OPTION_MAGIC = Buffer.from("IHAVEOPT");
const [READ, WRITE, DISCONNECT, FLUSH, TRIM] = [0, 1, 2, 3, 4];
const FUA = 1;
/** HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM. */
const FLAGS = 1 | 4 | 8 | 32;
const [ABORT, INFO, GO] = [2, 6, 7];
const [ACK, INFO_REPLY, UNSUPPORTED] = [1, 3, 0x80000001];

type Socket = Bun.Socket<Session>;

interface Session {
  pending: Buffer;
  outgoing: Buffer[];
  phase: "flags" | "options" | "transmission";
}

/** Seeded: a run that failed can be repeated. */
export function draws(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class DeviceDisk implements Disposable {
  readonly sizeBytes: number;
  /** All that the machine has written so far. */
  bytesWritten = 0;
  /** Reads, writes, flushes and hints that were answered. */
  requests = 0;
  private readonly image: number;
  private durable = new Map<number, Buffer>();
  private readonly cached = new Map<number, Buffer>();
  /** What was durable when the power came. */
  private atPowerOn: Blocks = new Map();
  private server: Bun.UnixSocketListener<Session> | undefined;

  /** @param path of the image, which is only read. */
  constructor(path: string) {
    this.image = openSync(path, "r");
    this.sizeBytes = fstatSync(this.image).size;
  }

  /** Serves it; one machine at a time. */
  listen(socketPath: string): void {
    this.atPowerOn = new Map(this.durable);
    this.server = Bun.listen<Session>({
      unix: socketPath,
      socket: {
        open: (socket) => {
          socket.data = { pending: Buffer.alloc(0), outgoing: [], phase: "flags" };
          send(socket, Buffer.concat([Buffer.from("NBDMAGIC"), OPTION_MAGIC, Buffer.of(0, 3)]));
        },
        data: (socket, bytes) => {
          socket.data.pending = Buffer.concat([socket.data.pending, bytes]);
          this.advance(socket);
        },
        drain: (socket) => void drain(socket),
      },
    });
  }

  /** The power has gone: the machine is dead already, and the cache goes its way. @returns how many blocks were in it. */
  losePower(kind: PowerLoss, draw: () => number): number {
    const count = this.cached.size;
    this.durable = this.afterCut(kind, draw);
    this.cached.clear();
    this.server?.stop(true);
    return count;
  }

  /** What would stand over the image if the power went at this moment; the machine runs on. */
  afterCut(kind: PowerLoss, draw: () => number, flushes: Flushes = "honest"): Map<number, Buffer> {
    const isLying = flushes === "lying";
    const left = new Map(isLying ? this.atPowerOn : this.durable);
    const doubtful = isLying ? new Map([...this.durable, ...this.cached]) : this.cached;
    for (const [block, after] of doubtful) {
      if (kind === "forgets" || left.get(block) === after) continue;
      const fate = draw();
      if (fate < 1 / 3) continue;
      const before = left.get(block) ?? this.imageBlock(block);
      const mixed = Buffer.from(after);
      if (fate < 2 / 3)
        for (let at = 0; at < BLOCK; at += SECTOR) if (draw() < 0.5) before.copy(mixed, at, at, at + SECTOR);
      left.set(block, mixed);
    }
    return left;
  }

  /** Writes what stands over a stretch of the image into that stretch's own file. @returns how many blocks. */
  static lay(blocks: Blocks, path: string, fromBytes: number, toBytes: number): number {
    const file = openSync(path, "r+");
    let count = 0;
    for (const [block, content] of blocks) {
      const at = block * BLOCK;
      if (at < fromBytes || at >= toBytes) continue;
      writeSync(file, content, 0, BLOCK, at - fromBytes);
      count += 1;
    }
    closeSync(file);
    return count;
  }

  /** Whether these bytes stand anywhere in a range of the disk, as the machine sees it. */
  contains(needle: string, fromBytes = 0, toBytes = this.sizeBytes): boolean {
    const wanted = Buffer.from(needle);
    let tail = Buffer.alloc(0);
    const step = 2 ** 20;
    for (let at = fromBytes; at < toBytes; at += step) {
      const chunk = Buffer.concat([tail, this.read(at, Math.min(step, toBytes - at))]);
      if (chunk.includes(wanted)) return true;
      tail = chunk.subarray(-wanted.length);
    }
    return false;
  }

  [Symbol.dispose](): void {
    this.server?.stop(true);
    closeSync(this.image);
  }

  private advance(socket: Socket): void {
    const { data } = socket;
    if (data.phase === "flags" && data.pending.length >= 4) {
      data.pending = data.pending.subarray(4);
      data.phase = "options";
    }
    while (data.phase === "options" && this.option(socket));
    while (data.phase === "transmission" && this.request(socket));
  }

  private option(socket: Socket): boolean {
    const { data } = socket;
    if (data.pending.length < 16) return false;
    const [option, length] = [data.pending.readUInt32BE(8), data.pending.readUInt32BE(12)];
    if (data.pending.length < 16 + length) return false;
    data.pending = data.pending.subarray(16 + length);
    const reply = (type: number, body: Buffer = Buffer.alloc(0)) => {
      const head = Buffer.alloc(20);
      head.writeBigUInt64BE(0x3e889045565a9n);
      for (const [index, value] of [option, type, body.length].entries()) head.writeUInt32BE(value, 8 + index * 4);
      send(socket, Buffer.concat([head, body]));
    };
    const geometry = Buffer.alloc(10);
    geometry.writeBigUInt64BE(BigInt(this.sizeBytes));
    geometry.writeUInt16BE(FLAGS, 8);
    if (option === GO || option === INFO) {
      reply(INFO_REPLY, Buffer.concat([Buffer.of(0, 0), geometry]));
      reply(ACK);
      if (option === GO) data.phase = "transmission";
    } else if (option === ABORT) {
      reply(ACK);
      socket.end();
    } else reply(UNSUPPORTED);
    return true;
  }

  private request(socket: Socket): boolean {
    const { data } = socket;
    if (data.pending.length < REQUEST_BYTES) return false;
    const head = data.pending.subarray(0, REQUEST_BYTES);
    if (head.readUInt32BE(0) !== REQUEST_MAGIC) throw new Error("no NBD request");
    const [flags, type, length] = [head.readUInt16BE(4), head.readUInt16BE(6), head.readUInt32BE(24)];
    const offset = Number(head.readBigUInt64BE(16));
    const end = REQUEST_BYTES + (type === WRITE ? length : 0);
    if (data.pending.length < end) return false;
    const body = data.pending.subarray(REQUEST_BYTES, end);
    const handle = Buffer.from(head.subarray(8, 16));
    data.pending = data.pending.subarray(end);
    if (type === DISCONNECT) {
      socket.end();
      return false;
    }
    if (type === WRITE) this.write(offset, body, (flags & FUA) !== 0);
    else if (type === FLUSH) this.flush();
    this.requests += 1;
    const reply = Buffer.alloc(16);
    reply.writeUInt32BE(REPLY_MAGIC);
    // What is not known is invalid; a trim is a hint that nobody has to take.
    reply.writeUInt32BE([READ, WRITE, FLUSH, TRIM].includes(type as 0) ? 0 : 22, 4);
    handle.copy(reply, 8);
    send(socket, type === READ ? Buffer.concat([reply, this.read(offset, length)]) : reply);
    return true;
  }

  private write(offset: number, body: Buffer, isDurable: boolean): void {
    this.bytesWritten += body.length;
    for (let at = 0; at < body.length;) {
      const block = Math.floor((offset + at) / BLOCK);
      const within = (offset + at) % BLOCK;
      const count = Math.min(BLOCK - within, body.length - at);
      const content = this.block(block);
      body.copy(content, within, at, at + count);
      if (isDurable) {
        this.durable.set(block, content);
        this.cached.delete(block);
      } else this.cached.set(block, content);
      at += count;
    }
  }

  private flush(): void {
    for (const [block, content] of this.cached) this.durable.set(block, content);
    this.cached.clear();
  }

  private read(offset: number, length: number): Buffer {
    const first = Math.floor(offset / BLOCK);
    const last = Math.floor((offset + length - 1) / BLOCK);
    const whole = Buffer.alloc((last - first + 1) * BLOCK);
    readSync(this.image, whole, 0, whole.length, first * BLOCK);
    for (let block = first; block <= last; block += 1)
      (this.cached.get(block) ?? this.durable.get(block))?.copy(whole, (block - first) * BLOCK);
    return whole.subarray(offset - first * BLOCK, offset - first * BLOCK + length);
  }

  /** A copy of one block as the machine sees it. */
  private block(block: number): Buffer {
    const kept = this.cached.get(block) ?? this.durable.get(block);
    return kept === undefined ? this.imageBlock(block) : Buffer.from(kept);
  }

  private imageBlock(block: number): Buffer {
    const bytes = Buffer.alloc(BLOCK);
    readSync(this.image, bytes, 0, BLOCK, block * BLOCK);
    return bytes;
  }
}

function send(socket: Socket, bytes: Buffer): void {
  socket.data.outgoing.push(bytes);
  drain(socket);
}

function drain(socket: Socket): void {
  const { outgoing } = socket.data;
  for (let next = outgoing[0]; next !== undefined; next = outgoing[0]) {
    const taken = socket.write(next);
    if (taken < next.length) {
      outgoing[0] = next.subarray(Math.max(0, taken));
      return;
    }
    outgoing.shift();
  }
}
