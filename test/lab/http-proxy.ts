/**
 * `bun http-proxy.ts HOST PORT`: an HTTP proxy that knows CONNECT alone.
 */
import { connect, createServer } from "node:net";

const [host = "", port = ""] = process.argv.slice(2);
createServer((client) => {
  client.on("error", () => client.destroy());
  client.once("data", (head: Buffer) => {
    const [, name = "", at = ""] = /^CONNECT ([^: ]+):(\d+) /.exec(head.toString("latin1")) ?? [];
    console.log(`connect ${name}:${at}`);
    const there = connect(Number(at), name, () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      client.pipe(there).pipe(client);
    });
    there.on("error", () => client.destroy());
    client.on("close", () => there.destroy());
  });
}).listen(Number(port), host, () => console.log("ready"));
