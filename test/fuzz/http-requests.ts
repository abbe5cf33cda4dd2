/**
 * Requests as clients send them, and as nobody should.
 *
 * Seeds are heads of real clients; each is bent a few times at the places
 * where readers are known to differ: line ends, white space, lengths, codings,
 * names that are there twice, chunks.
 */

import type { Draw } from "./random.ts";

const HOST = "Host: localhost\r\n";

/** As a kubelet, kubectl, curl and an operator send them. */
const SEEDS: readonly string[] = [
  `GET /api/v1/nodes/edge-0?resourceVersion=0&timeout=10s HTTP/1.1\r\n${HOST}User-Agent: kubelet/v1.37.2 (linux/amd64) kubernetes/abc\r\nAccept: application/vnd.kubernetes.protobuf,application/json\r\nAccept-Encoding: gzip\r\n\r\n`,
  `PATCH /api/v1/nodes/edge-0/status?timeout=10s HTTP/1.1\r\n${HOST}Content-Length: 18\r\nAccept: application/json\r\nContent-Type: application/strategic-merge-patch+json\r\n\r\n{"status":{"a":1}}`,
  `GET /api/v1/pods?allowWatchBookmarks=true&watch=true HTTP/1.1\r\n${HOST}User-Agent: kubelet\r\nConnection: keep-alive\r\n\r\n`,
  `POST /api/v1/namespaces/shop/events HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n`,
  `POST /api/v1/namespaces/shop/pods/web-0/exec?command=sh HTTP/1.1\r\n${HOST}Content-Length: 0\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n`,
  `DELETE /api/v1/namespaces/shop/pods/web-0 HTTP/1.1\r\n${HOST}Content-Length: 2\r\nAuthorization: Bearer abc.def.ghi\r\nExpect: 100-continue\r\n\r\n{}`,
  "GET /livez HTTP/1.0\r\n\r\n",
];

/** What readers differ on. */
const PIECES: readonly string[] = [
  "\r\n",
  "\n",
  "\r",
  " ",
  "\t",
  "\0",
  ":",
  ";",
  ",",
  "\x0b",
  "\x7f",
  "\xe4",
  "0",
  "ff",
  "\r\n ",
  "\r\n\t",
  "\r\n\r\n",
  "\n\n",
  HOST,
  "Host: other\r\n",
  "Content-Length: 3\r\n",
  "Content-Length: 4\r\n",
  "Content-Length : 3\r\n",
  "content-length: +3\r\n",
  "Content-Length: 3, 3\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Transfer-Encoding: gzip, chunked\r\n",
  "Transfer-Encoding: \x0bchunked\r\n",
  "Transfer-Encoding:chunked \r\n",
  "TRANSFER-ENCODING: Chunked\r\n",
  "Connection: close\r\n",
  "Connection: Content-Length\r\n",
  "Expect: 100-continue\r\n",
  "X: y\r\n",
  "X:\r\n",
  ": y\r\n",
  "X y\r\n",
  "0\r\n\r\n",
  "3\r\nabc\r\n",
  "1;a=b\r\nx\r\n",
  "GET / HTTP/1.1\r\n",
  " HTTP/1.1",
  "HTTP/1.0",
  "HTTP/2.0",
];

/** A client's bytes, latin1: one to three requests, bent up to four times. */
export function drawRequests(draw: Draw): string {
  let text = "";
  for (let left = 1 + draw.index(3); left > 0; left--) text += draw.of(SEEDS);
  for (let left = draw.index(5); left > 0; left--) text = bent(draw, text);
  return text;
}

function bent(draw: Draw, text: string): string {
  const at = draw.chance(0.5) ? lineStart(draw, text) : draw.index(text.length + 1);
  switch (draw.index(5)) {
    case 0:
    case 1:
      return text.slice(0, at) + draw.of(PIECES) + text.slice(at);
    case 2:
      return text.slice(0, at) + text.slice(at + 1 + draw.index(4));
    case 3:
      return text.slice(0, at) + String.fromCharCode(draw.index(256)) + text.slice(at + 1);
    default: {
      // A line twice, or in another place.
      const from = lineStart(draw, text);
      const line = text.slice(from, text.indexOf("\n", from) + 1);
      return text.slice(0, at) + line + text.slice(at);
    }
  }
}

function lineStart(draw: Draw, text: string): number {
  return text.lastIndexOf("\n", draw.index(text.length + 1)) + 1;
}
