/**
 * Whether bytes of a TLS connection to kubelet are pings of a SPDY session and
 * nothing else, by the lengths of their records alone: what is sealed stays
 * sealed. Kubelet passes such pings on to the container runtime; WebSocket's it
 * answers itself.
 *
 * A record of TLS 1.3 is its text and 17 bytes (RFC 8446, 5.2). The only writer
 * of SPDY/3.1 here, moby/spdystream, writes a frame field by field: a ping is
 * records of 2, 2, 4 and 4 bytes. A message begins with 4; other control
 * frames go on after these four.
 */

const HEADER_BYTES = 5;
const SEAL_BYTES = 17;
const APPLICATION_DATA = 0x17;
const PING = [2, 2, 4, 4].map((text) => text + SEAL_BYTES);

/** @param bytes as they came at once; a record that is not whole makes them no ping. */
export function isSealedPing(bytes: Uint8Array): boolean {
  let at = 0;
  let records = 0;
  while (at < bytes.length) {
    if (bytes[at] !== APPLICATION_DATA || bytes[at + 1] !== 3 || bytes[at + 2] !== 3) return false;
    const length = ((bytes[at + 3] ?? 0) << 8) | (bytes[at + 4] ?? 0);
    if (length !== PING[records % PING.length]) return false;
    records++;
    at += HEADER_BYTES + length;
  }
  return at === bytes.length && records > 0 && records % PING.length === 0;
}
