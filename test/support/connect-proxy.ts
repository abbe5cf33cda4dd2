import * as net from "node:net";
import * as tls from "node:tls";

/** An HTTP proxy that knows CONNECT and counts it; spoken to over TLS with a key pair. */
export async function startConnectProxy(keyPair?: { readonly cert: string; readonly key: string }) {
  const targets: string[] = [];
  const sockets = new Set<net.Socket>();
  const serve = (client: net.Socket) => {
    sockets.add(client);
    client.on("error", () => client.destroy());
    client.once("data", (head: Buffer) => {
      const [, host = "", port = ""] = /^CONNECT ([^:]+):(\d+) /.exec(head.toString("latin1")) ?? [];
      targets.push(`${host}:${port}`);
      const upstream = net.connect(Number(port), host, () => {
        client.write("HTTP/1.1 200 Connection established\r\n\r\n");
        client.pipe(upstream).pipe(client);
      });
      sockets.add(upstream);
      upstream.on("error", () => client.destroy());
    });
  };
  const server = keyPair === undefined ? net.createServer(serve) : tls.createServer(keyPair, serve);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `${keyPair === undefined ? "http" : "https"}://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    targets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
