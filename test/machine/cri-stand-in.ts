/**
 * A container runtime that knows one call, by node's own HTTP/2.
 */

import { mkdirSync } from "node:fs";
import { createServer, type ServerHttp2Stream } from "node:http2";
import { dirname } from "node:path";
import { message, text } from "../../src/kube/protobuf-wire.ts";

/** An image as the runtime lists it. */
export interface ListedImage {
  readonly id: string;
  readonly tags: readonly string[];
  readonly digests?: readonly string[];
}

/** Serves a list of images on a unix socket. @param how "silent" never answers, "refuses" has no such method. */
export async function serveImages(path: string, images: readonly ListedImage[], how?: "silent" | "refuses") {
  mkdirSync(dirname(path), { recursive: true });
  const server = createServer();
  const sessions = new Set<{ destroy(): void }>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    stream.on("error", () => {});
    if (how === "silent") return;
    if (how === "refuses" || headers[":path"] !== "/runtime.v1.ImageService/ListImages") {
      stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "12" }, { endStream: true });
      return;
    }
    const body = Buffer.concat(
      images.map(({ id, tags, digests = [] }) =>
        message(1, [text(1, id), ...tags.map((tag) => text(2, tag)), ...digests.map((digest) => text(3, digest))]),
      ),
    );
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(Buffer.concat([head, body]));
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(path, resolve);
  await promise;
  return {
    [Symbol.dispose]() {
      for (const session of sessions) session.destroy();
      server.close();
    },
  };
}
