// Node's own HTTP server as a reader: a line of base64 in, a line of JSON out, in order.
import http from "node:http";
import { createInterface } from "node:readline";
import { Duplex } from "node:stream";

const streams = new Map();
const server = http.createServer({ insecureHTTPParser: false, requireHostHeader: true }, (request, response) => {
  const stream = request.socket;
  const read = streams.get(stream);
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("error", () => {});
  request.on("end", () => {
    if (request.complete)
      read.requests.push({
        method: request.method,
        target: request.url,
        body: Buffer.concat(parts).toString("latin1"),
      });
    response.end();
  });
});
server.on("checkExpectation", (_request, response) => {
  response.writeHead(417);
  response.end();
});
server.on("clientError", (_error, stream) => {
  const read = streams.get(stream);
  if (read !== undefined) read.isRefused = true;
  stream.destroy();
});

function readCase(bytes) {
  return new Promise((resolve) => {
    const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
    stream.setTimeout = () => stream;
    stream.setNoDelay = stream.setKeepAlive = () => stream;
    const read = { requests: [], isRefused: false };
    streams.set(stream, read);
    const done = () => {
      clearTimeout(timer);
      streams.delete(stream);
      resolve(read);
    };
    const timer = setTimeout(() => stream.destroy(), 300);
    stream.on("error", () => {});
    stream.on("close", done);
    server.emit("connection", stream);
    stream.push(bytes);
    stream.push(null);
  });
}

let last = Promise.resolve();
for await (const line of createInterface({ input: process.stdin })) {
  const result = readCase(Buffer.from(line, "base64"));
  last = last.then(async () => void process.stdout.write(`${JSON.stringify(await result)}\n`));
}
await last;
