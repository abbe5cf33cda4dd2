/**
 * One flush of a compressed watch: a whole gzip member, flushed before it ends.
 *
 * Go's reader holds back the data of a final block until it has read the next
 * member's header, which on a quiet watch never comes. So the data stands in a
 * block that is flushed but not final, and an empty final block follows, as
 * the real server writes it.
 *
 *   1f 8b 08 00 00000000 00 ff   header: deflate, no flags, no time
 *   ... 00 00 ff ff              data, ended by a sync flush
 *   03 00                        empty final block
 *   CRC-32, length               little-endian, of the plain bytes
 *
 * Source: RFC 1951, RFC 1952.
 */

import { constants, crc32, deflateRawSync } from "node:zlib";

const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
const FINAL_BLOCK = Buffer.from([0x03, 0x00]);

/** The bytes as one member that a streaming reader can use at once. */
export function gzipMember(bytes: Uint8Array): Buffer {
  const data = deflateRawSync(bytes, { level: 1, finishFlush: constants.Z_SYNC_FLUSH });
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(bytes));
  trailer.writeUInt32LE(bytes.length >>> 0, 4);
  return Buffer.concat([HEADER, data, FINAL_BLOCK, trailer]);
}
