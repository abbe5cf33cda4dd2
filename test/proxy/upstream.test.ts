import { expect, test } from "bun:test";
import * as http2 from "node:http2";
import * as https from "node:https";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { Upstream } from "../../src/proxy/upstream.ts";

interface Arrival {
  readonly method: string;
  readonly httpVersion: string;
}

/** An API server that breaks the connection of each write once it has read it. */
async function startBreaking({ isHttp2 }: { readonly isHttp2: boolean }) {
  const cluster = mintCluster();
  const { cert, key } = cluster.servingCertificate(["127.0.0.1"]);
  const arrivals: Arrival[] = [];
  const onRequest = (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse) => {
    const { method, httpVersion } = request;
    arrivals.push({ method, httpVersion });
    if (method === "GET") return void response.end("ok");
    request.resume().on("end", () => (request.stream?.session ?? request.socket).destroy());
  };
  const server = isHttp2
    ? http2.createSecureServer({ cert, key, allowHTTP1: true }, onRequest)
    : https.createServer({ cert, key }, onRequest as never);
  server.on("sessionError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const upstream = new Upstream({
    servers: [`https://127.0.0.1:${(server.address() as { port: number }).port}`],
    caPem: cluster.ca,
    proxyFor: () => undefined,
    onAnswer() {},
    onFailure() {},
    onWaiting() {},
  });
  const ask = async (method: string, body?: Uint8Array<ArrayBuffer>) => {
    const response = await upstream.request({
      method,
      target: "/api/v1/namespaces/shop/configmaps/a",
      headers: [],
      ...(body === undefined ? {} : { body }),
      credential: { id: "admin" },
      signal: new AbortController().signal,
    });
    return response.text();
  };
  return { ask, arrivals, [Symbol.dispose]: () => void server.close() };
}

test.each([
  ["PUT", new Uint8Array(100)],
  ["DELETE", undefined],
  ["POST", new Uint8Array(100)],
] as const)("a %s whose connection breaks under it reaches the API server once", async (method, body) => {
  using apiServer = await startBreaking({ isHttp2: true });
  await apiServer.ask("GET");
  await expect(apiServer.ask(method, body)).rejects.toThrow("Cannot reach the API server");
  // On a connection that has been used, where a client may believe that the other end had closed it before.
  await expect(apiServer.ask(method, body)).rejects.toThrow("Cannot reach the API server");
  expect(apiServer.arrivals).toEqual([
    { method: "GET", httpVersion: "1.1" },
    { method, httpVersion: "2.0" },
    { method, httpVersion: "2.0" },
  ]);
});

test("a write goes up over HTTP/1.1 where the API server speaks nothing else", async () => {
  using apiServer = await startBreaking({ isHttp2: false });
  await expect(apiServer.ask("POST", new Uint8Array(100))).rejects.toThrow("Cannot reach the API server");
  expect(apiServer.arrivals).toEqual([{ method: "POST", httpVersion: "1.1" }]);
});
