/**
 * The flood bench's API server, a process of its own: the stand-in with much to
 * list, changes all the time, a compressed answer that unfolds to 500 MB, and a
 * wire that takes large bodies slowly.
 *
 * The first line of output is JSON: {port, ca, node, reader}. The end of input
 * ends it.
 */

import { createServer, connect, type Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { DEMO_NODE, demoSlice, demoWorld } from "../../src/demo/api-server/seed.ts";

const SLICES = 2_000;
const CHANGES_PER_SECOND = 50;
/** A body up to this size passes at full speed, a larger one at 1 MB/s. */
const FAST_BYTES = 2 * 1024 * 1024;
const SLOW_BYTES_PER_SECOND = 1e6;
const UNFOLDED_ITEMS = 500;

const api = await startApiServer({
  objects: demoWorld(SLICES),
  tokens: { reader: { name: "reader", groups: [] } },
});
api.answerInstead(
  {
    status: 200,
    body: manyMembers(),
    headers: { "content-type": "application/json", "content-encoding": "gzip", "audit-id": "flood" },
  },
  ({ namespace }) => namespace === "unfolds",
);
let changes = 0;
setInterval(() => {
  const slice = demoSlice(changes++ % (SLICES - 1));
  const metadata = { ...(slice["metadata"] as object), annotations: { "holdfast.dev/churn": String(changes) } };
  api.put({ ...slice, metadata });
}, 1_000 / CHANGES_PER_SECOND);

const relay = createServer({ pauseOnConnect: false }, (client) => {
  const server = connect(api.port, api.host);
  join(client, server);
});
relay.listen(0, "127.0.0.1", () => {
  const { cert, key } = api.cluster.clientCertificate(`system:node:${DEMO_NODE}`, ["system:nodes"]);
  const { port } = relay.address() as { port: number };
  process.stdout.write(`${JSON.stringify({ port, ca: api.cluster.ca, cert, key, node: DEMO_NODE })}\n`);
});
process.stdin.on("end", () => process.exit(0)).resume();

/** Down as it comes; up slowly once a connection has brought much. */
function join(client: Socket, server: Socket): void {
  let up = 0;
  client.on("data", (bytes: Buffer) => {
    up += bytes.length;
    const isTaken = server.write(bytes);
    if (up > FAST_BYTES) {
      client.pause();
      setTimeout(() => client.resume(), (bytes.length / SLOW_BYTES_PER_SECOND) * 1_000);
    } else if (!isTaken) {
      client.pause();
      server.once("drain", () => client.resume());
    }
  });
  server.pipe(client);
  const end = () => {
    client.destroy();
    server.destroy();
  };
  for (const socket of [client, server]) socket.on("error", end).on("close", end);
}

/** A list of 500 ConfigMaps of 1 MB each, as about half a megabyte of gzip members. */
function manyMembers(): Uint8Array {
  const pack = (text: string) => gzipSync(text);
  const filling = pack(`${"x".repeat(1e6)}"}}`);
  const parts = [pack('{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[')];
  for (let index = 0; index < UNFOLDED_ITEMS; index++) {
    const meta = `{"metadata":{"name":"c${index}","namespace":"unfolds","uid":"u${index}","resourceVersion":"4"},"data":{"a":"`;
    parts.push(pack(`${index === 0 ? "" : ","}${meta}`), filling);
  }
  return Buffer.concat([...parts, pack("]}")]);
}
