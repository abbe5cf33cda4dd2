/**
 * The tables that header blocks point into.
 *
 *   index 1 to 61    the static table
 *   from 62 on       the dynamic one, newest first
 *
 * Both ends keep the same dynamic table for each direction: what it costs is
 * counted as the source says, names and values and 32 bytes an entry, and the
 * oldest give way.
 *
 * Source: RFC 7541 sections 2.3 and 4, appendix A.
 */

/** Name and value; shared by all heads that have it. */
export type HeaderField = readonly [name: string, value: string];

/** What the dynamic table may cost at most, ours and what we use of the other end's; also what holds before anything was said. */
export const MAX_TABLE_BYTES = 4_096;
const ENTRY_BYTES = 32;

/** What an entry costs. */
export function entryBytes([name, value]: HeaderField): number {
  return name.length + value.length + ENTRY_BYTES;
}

const STATIC_TEXT = `:authority
:method: GET
:method: POST
:path: /
:path: /index.html
:scheme: http
:scheme: https
:status: 200
:status: 204
:status: 206
:status: 304
:status: 400
:status: 404
:status: 500
accept-charset
accept-encoding: gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate`;

/** The static table; its first entry has index 1. */
export const STATIC_FIELDS: readonly HeaderField[] = STATIC_TEXT.split("\n").map((line) => {
  const colon = line.indexOf(": ");
  return colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 2)];
});
