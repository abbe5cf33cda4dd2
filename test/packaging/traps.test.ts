/**
 * What this runtime and its compiled binaries do that costs days to find out.
 *
 * "The binary ..." are promises of ours; "this runtime ..." are behaviours we
 * work around: when one of those fails after a bump of Bun, the workaround may go.
 */

import { afterAll, describe, expect, test } from "bun:test";
import * as http from "node:http";
import * as http2 from "node:http2";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as https from "node:https";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { Client, eventually } from "../support/client.ts";

const root = join(import.meta.dir, "..", "..");
const binary = process.env["HOLDFAST_BINARY"] ?? join(root, "dist", `holdfast-linux-${process.arch}`);
const folder = mkdtempSync(join(tmpdir(), "holdfast-traps-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What the binary is started for, and with. */
interface Upstream {
  readonly kubeconfig: string;
  /** The certificate in that kubeconfig, which local clients show as well. */
  readonly pair: { readonly cert: string; readonly key: string };
  readonly env?: Readonly<Record<string, string>>;
}

function adminOf(apiServer: ApiServer): Upstream {
  const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
  return { kubeconfig: apiServer.kubeconfig({ user: "admin", keyPair: pair }), pair };
}

async function startBinary({ kubeconfig, pair, env = {} }: Upstream) {
  const home = mkdtempSync(join(folder, "run-"));
  writeFileSync(join(home, "kubeconfig"), kubeconfig);
  const files = ["--kubeconfig", join(home, "kubeconfig"), "--state-dir", join(home, "state")];
  const child = Bun.spawn([binary, "run", ...files, "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"], {
    cwd: home,
    env: { ...process.env, ...env },
    stderr: "pipe",
    stdout: "ignore",
  });
  const said: string[] = [];
  let port = 0;
  for await (const line of createInterface({ input: Readable.fromWeb(child.stderr as never) })) {
    said.push(line);
    port = Number(/"message":"serving","ports":"(\d+)"/.exec(line)?.[1] ?? 0);
    if (port > 0) break;
  }
  if (port === 0) {
    child.kill();
    throw new Error(`Cannot start "${binary}" (is it built from this tree?): it said ${said.join("\n")}`);
  }
  const ca = readFileSync(join(home, "state", "pki", "local-ca.crt"), "utf8");
  const client = new Client({ url: `https://127.0.0.1:${port}`, ca, ...pair });
  return {
    pid: child.pid,
    client,
    async [Symbol.asyncDispose]() {
      client.close();
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

/** The stand-in as a process of its own, whose heads may be as large as ours: here they may not. */
async function startRoomyApiServer() {
  const dir = mkdtempSync(join(folder, "api-"));
  const script = join(root, "src", "demo", "api-server", "main.ts");
  const child = Bun.spawn([process.execPath, "--max-http-header-size=131072", script, "--dir", dir], {
    stdin: "pipe",
    stdout: "pipe",
  });
  const lines = createInterface({ input: Readable.fromWeb(child.stdout as never) })[Symbol.asyncIterator]();
  await lines.next();
  const kubeconfig = readFileSync(join(dir, "admin.kubeconfig"), "utf8");
  const pem = (field: string) =>
    Buffer.from(new RegExp(`"?${field}"?: *"?([\\w+/=]+)`).exec(kubeconfig)![1]!, "base64");
  return {
    kubeconfig,
    pair: { cert: pem("client-certificate-data").toString(), key: pem("client-key-data").toString() },
    async userAgents(): Promise<(string | undefined)[]> {
      child.stdin.write("log\n");
      const { requests } = JSON.parse((await lines.next()).value as string) as { requests: { userAgent?: string }[] };
      return requests.map(({ userAgent }) => userAgent);
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

describe.skipIf(!existsSync(binary))("the binary (needs dist/)", () => {
  test("does not load bunfig.toml or .env from its working directory", async () => {
    const cwd = mkdtempSync(join(folder, "planted-"));
    const mark = join(cwd, "ran");
    writeFileSync(join(cwd, "evil.ts"), `require("node:fs").writeFileSync(${JSON.stringify(mark)}, "x");`);
    writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    writeFileSync(join(cwd, ".env"), "HOLDFAST_KUBECONFIG=/from/dotenv\n");
    const result = Bun.spawnSync([binary, "run"], { cwd });
    expect(existsSync(mark)).toBe(false);
    expect(result.exitCode).toBe(1);
    expect(result.stderr.toString()).toContain("without a kubeconfig");
  });

  test("replaces itself once with the network settings, under the same pid, and leaves foreign code behind", async () => {
    await using apiServer = await startApiServer();
    // Harmless in itself: whoever can plant it could as well preload code of their own.
    await using holdfast = await startBinary({
      ...adminOf(apiServer),
      env: { BUN_OPTIONS: "--smol", BUN_INSPECT: "" },
    });
    const environment = readFileSync(`/proc/${holdfast.pid}/environ`, "utf8").split("\0");
    expect(environment.some((entry) => /^BUN_CONFIG_MAX_HTTP_REQUESTS=\d{4,}$/.test(entry))).toBe(true);
    expect(environment).toContain("BUN_CONFIG_HTTP_IDLE_TIMEOUT=0");
    expect(environment.some((entry) => /^BUN_(OPTIONS|INSPECT|BE_BUN)=/.test(entry))).toBe(false);
  });

  test.each([
    { profile: "small", isJitOff: true, engine: ["BUN_JSC_miniVMHeapGrowthFactor=2", "BUN_JSC_useJIT=0"] },
    { profile: "default", isJitOff: false, engine: ["BUN_JSC_useFTLJIT=0"] },
  ])("the $profile profile decides about the just-in-time compiler", async ({ profile, isJitOff, engine }) => {
    await using apiServer = await startApiServer();
    await using holdfast = await startBinary({ ...adminOf(apiServer), env: { HOLDFAST_PROFILE: profile } });
    const environment = readFileSync(`/proc/${holdfast.pid}/environ`, "utf8").split("\0");
    expect(environment.filter((entry) => entry.startsWith("BUN_JSC_")).sort()).toEqual([...engine]);
    // Code made at run time lies in pages that may be written and executed.
    const madeCode = readFileSync(`/proc/${holdfast.pid}/maps`, "utf8").match(/ rwxp .*/g) ?? [];
    expect(madeCode.length === 0).toBe(isJitOff);
  });

  test("an unknown profile is refused by its name", () => {
    const result = Bun.spawnSync([binary, "run"], { env: { ...process.env, HOLDFAST_PROFILE: "tiny" } });
    expect(result.exitCode).toBe(1);
    expect(result.stderr.toString()).toContain('HOLDFAST_PROFILE "tiny"');
  });

  test("holds three hundred upstream watches at once", async () => {
    await using apiServer = await startApiServer();
    await using holdfast = await startBinary(adminOf(apiServer));
    const open = (index: number) =>
      holdfast.client.watch(
        `/api/v1/namespaces/default/configmaps?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3Dx-${index}`,
      );
    const watches: Awaited<ReturnType<typeof open>>[] = [];
    // A handshake has ten seconds, and all ends are on this machine: not all of them begin at once.
    while (watches.length < 300)
      watches.push(...(await Promise.all(Array.from({ length: 20 }, (_, i) => open(watches.length + i)))));
    await eventually(
      () => apiServer.watchCount,
      (count) => count === 300,
      30_000,
    );
    apiServer.put({ kind: "ConfigMap", apiVersion: "v1", metadata: { name: "x-299", namespace: "default" } });
    await watches[299]!.until((events) => events.some(({ object }) => object.metadata.name === "x-299"), 15_000);
    for (const watch of watches) watch.close();
  }, 60_000);

  test("takes heads of 100 KB from a client of the cluster, and not from a stranger", async () => {
    await using apiServer = await startApiServer();
    await using holdfast = await startBinary(adminOf(apiServer));
    // Answered by Holdfast itself: the server of this very test process still has the limit of 16 KB.
    const headers = { "X-Long": "x".repeat(100_000) };
    expect((await holdfast.client.get("/version", { ...headers, "X-Remote-User": "a" })).status).toBe(400);
    const stranger = new Client({ url: holdfast.client.options.url, ca: holdfast.client.options.ca });
    expect((await stranger.get("/version", headers)).status).toBe(431);
    stranger.close();
  });

  test("passes a header of 40 KB on to the API server", async () => {
    await using apiServer = await startRoomyApiServer();
    await using holdfast = await startBinary(apiServer);
    const long = `long/${"x".repeat(40_000)}`;
    expect((await holdfast.client.get("/api/v1/namespaces/default", { "User-Agent": long })).status).toBe(200);
    expect(await apiServer.userAgents()).toContain(long);
  });

  test("a stripped copy does not call itself holdfast", () => {
    if (Bun.which("strip") === null) return;
    const stripped = join(folder, "stripped");
    Bun.spawnSync(["cp", binary, stripped]);
    Bun.spawnSync(["strip", stripped]);
    expect(Bun.spawnSync([stripped, "version"]).stdout.toString()).not.toStartWith("holdfast ");
  });
});

describe("this runtime", () => {
  const pair = mintCluster().servingCertificate(["127.0.0.1"]);
  const tlsOptions = { key: pair.key, cert: pair.cert };
  const lax = { rejectUnauthorized: false };

  async function served(handler: (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse) => void) {
    const server = http2.createSecureServer({ ...tlsOptions, allowHTTP1: true }, handler);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return {
      url: `https://127.0.0.1:${(server.address() as { port: number }).port}`,
      server,
      [Symbol.dispose]: () => void server.close(),
    };
  }

  test("fetch collapses dot segments, so such targets go out through node:https", async () => {
    const seen: string[] = [];
    using one = await served((request, response) => {
      seen.push(request.url);
      response.end("ok");
    });
    await (await fetch(`${one.url}/a/../b`, { tls: lax } as RequestInit)).text();
    expect(seen).toEqual(["/b"]);
    const { promise, resolve } = Promise.withResolvers<void>();
    https.get({ host: "127.0.0.1", port: new URL(one.url).port, path: "/a/../b", ...lax }, (response) =>
      response.resume().on("end", resolve),
    );
    await promise;
    expect(seen).toEqual(["/b", "/a/../b"]);
  });

  test("an HTTP/2 stream closed with an error code reads as a clean end; only destroying with an error resets it", async () => {
    using one = await served((request, response) => {
      response.on("error", () => {});
      response.writeHead(200);
      response.write("x".repeat(1_000));
      setTimeout(
        () => (request.url === "/close" ? request.stream.close(2) : response.destroy(new Error("broken off"))),
        20,
      );
    });
    const get = async (path: string) =>
      (await fetch(one.url + path, { protocol: "http2", tls: lax } as RequestInit)).arrayBuffer();
    expect((await get("/close")).byteLength).toBe(1_000);
    await expect(get("/destroy")).rejects.toThrow();
  });

  test("fetch opens new connections for a CA text with one blank line more", async () => {
    let connections = 0;
    using one = await served((_request, response) => void response.end("ok"));
    one.server.on("secureConnection", () => connections++);
    const get = async (ca: string) =>
      (await fetch(one.url, { protocol: "http1.1", tls: { ca, ...lax } } as RequestInit)).text();
    await get(pair.cert);
    await get(pair.cert);
    expect(connections).toBe(1);
    await get(`${pair.cert}\n`);
    expect(connections).toBe(2);
  });

  test("Bun.serve holds an answer's head back until the first byte of its body", async () => {
    let release: () => void = () => {};
    using server = Bun.serve({
      port: 0,
      reusePort: false,
      fetch: () =>
        new Response(
          new ReadableStream({
            start: (controller) => void (release = () => (controller.enqueue("x"), controller.close())),
          }),
        ),
    });
    let hasHead = false;
    const answer = fetch(server.url).then((response) => ((hasHead = true), response.text()));
    await Bun.sleep(300);
    expect(hasHead).toBe(false);
    release();
    expect(await answer).toBe("x");
  });

  test("Bun.serve shares a taken port unless told not to, so the health listener tells it", () => {
    using server = Bun.serve({ port: 0, reusePort: false, fetch: () => new Response() });
    expect(() => Bun.serve({ port: server.port!, reusePort: false, fetch: () => new Response() })).toThrow();
  });

  test("http.listen({ fd }) opens a random port on every interface, so sockets are not passed to us", async () => {
    const server = http.createServer();
    await new Promise<void>((resolve) => server.listen({ fd: openSync("/dev/null", "r") }, resolve));
    const { address, port } = server.address() as { address: string; port: number };
    server.close();
    expect(["::", "0.0.0.0"]).toContain(address);
    expect(port).toBeGreaterThan(0);
  });

  test("the node:http2 client ends a truncated body cleanly, where fetch fails, so fetch it is", async () => {
    using one = await served((_request, response) => {
      response.on("error", () => {});
      response.writeHead(200, { "content-length": "100000" });
      response.write("x".repeat(1_000));
    });
    one.server.on("sessionError", () => {});
    // A link that is lost as soon as the first bytes of the body have come.
    const sockets: net.Socket[] = [];
    const link = net.createServer((near) => {
      const far = net.connect(Number(new URL(one.url).port), "127.0.0.1");
      sockets.push(near, far);
      for (const socket of [near, far]) socket.on("error", () => {});
      near.pipe(far).pipe(near);
    });
    await new Promise<void>((resolve) => link.listen(0, "127.0.0.1", resolve));
    const cut = () => setTimeout(() => sockets.splice(0).forEach((socket) => socket.destroy()), 50);
    const url = `https://127.0.0.1:${(link.address() as net.AddressInfo).port}`;

    const session = http2.connect(url, lax);
    session.on("error", () => {});
    const stream = session.request({ ":path": "/" });
    const events: string[] = [];
    for (const event of ["end", "error", "aborted"]) stream.on(event, () => events.push(event));
    stream.once("data", cut);
    stream.end();
    await new Promise((resolve) => stream.once("close", resolve));
    session.destroy();
    expect(events).toEqual(["end"]);

    const response = await fetch(url, { protocol: "http2", tls: lax } as RequestInit);
    cut();
    await expect(response.arrayBuffer()).rejects.toThrow();
    link.close();
  });

  test("fetch repeats a PUT on a kept connection that breaks over HTTP/1.1, and not over HTTP/2", async () => {
    const seen: string[] = [];
    using one = await served((request, response) => {
      seen.push(request.method);
      if (request.method === "GET") return void response.end("ok");
      request.resume().on("end", () => (request.stream?.session ?? request.socket).destroy());
    });
    one.server.on("sessionError", () => {});
    const ask = async (protocol: string, method: string) => {
      const body = method === "GET" ? {} : { body: new Uint8Array(100) };
      const how = { method, ...body, protocol, tls: lax };
      return (await fetch(one.url, how as RequestInit)).text();
    };
    for (const protocol of ["http1.1", "http2"]) {
      await ask(protocol, "GET");
      await expect(ask(protocol, "PUT")).rejects.toThrow();
    }
    expect(seen).toEqual(["GET", "PUT", "PUT", "GET", "PUT"]);
  });

  test("process.exit drops what a pipe has not taken yet, so commands write synchronously", async () => {
    const script = 'process.stdout.write("x".repeat(1_000_000)); process.exit(0);';
    // wc reads nothing before the writer has ended, so the pipe's 64 KB are all there is room for.
    const line = '{ "$0" -e "$1"; echo done >"$2"; } | { until [ -e "$2" ]; do sleep 0.01; done; wc -c; }';
    const { stdout } = Bun.spawnSync(["sh", "-c", line, process.execPath, script, join(folder, "written")]);
    expect(Number(stdout.toString())).toBe(65_536);
  });
});

test("this runtime hands each socket handler bytes of its own: what comes next does not write over them", async () => {
  const cluster = mintCluster();
  const { cert, key } = cluster.servingCertificate(["127.0.0.1"]);
  const kept: { readonly bytes: Uint8Array; readonly sum: number | bigint }[] = [];
  const keep = (bytes: Uint8Array) => kept.push({ bytes, sum: Bun.hash(bytes) });
  const piece = (nth: number) => Buffer.alloc(20_000, nth);
  const server = Bun.listen<{ nth: number }>({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert, key },
    socket: {
      binaryType: "buffer",
      open: (socket) => void (socket.data = { nth: 0 }),
      data(socket, bytes) {
        keep(bytes);
        socket.write(piece(socket.data.nth++));
      },
    },
  });
  let came = 0;
  const open = Promise.withResolvers<void>();
  const client = await Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    tls: { ca: cluster.ca },
    socket: {
      binaryType: "buffer",
      handshake: () => open.resolve(),
      data(_, bytes) {
        keep(bytes);
        came += bytes.length;
      },
    },
  });
  await open.promise;
  for (let round = 1; round <= 40; round++) {
    client.write(`question ${round}`);
    await eventually(() => came === 20_000 * round);
  }
  client.end();
  server.stop(true);
  expect(kept.length).toBeGreaterThanOrEqual(80);
  expect(kept.filter(({ bytes, sum }) => Bun.hash(bytes) !== sum)).toEqual([]);
});

test("this runtime's sockets say the ports by which the kernel's table has them, and take a keepalive", async () => {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: server.port, socket: { data() {} } });
    socket.setKeepAlive(true, 15_000);
    const { localPort, remotePort } = socket as unknown as { readonly localPort: number; readonly remotePort: number };
    expect(remotePort).toBe(server.port);
    const ends = [localPort, remotePort].map((port) => port.toString(16).toUpperCase().padStart(4, "0"));
    const line = readFileSync("/proc/self/net/tcp", "latin1")
      .split("\n")
      .find((one) => new RegExp(`:${ends[0]} [0-9A-F]+:${ends[1]} `).test(one));
    // The timer that runs is the keepalive's.
    expect(line).toMatch(/ 02:[0-9A-F]{8} /);
    socket.end();
  } finally {
    server.stop(true);
  }
});
