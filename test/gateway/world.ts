/**
 * A cluster with gateways and nodes: the API server is the stand-in, everything
 * else is real: sockets, TLS, certificates, both ends of the tunnel. A node's
 * kubelet is a TCP server here; what it says is the test's.
 */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import type { Log, LogFields } from "../../src/base/log.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { startGateway, type GatewayDaemon, type GatewayOptions } from "../../src/gateway/daemon.ts";
import { Agent, type AgentParts } from "../../src/tunnel/agent.ts";

export const NAMESPACE = "holdfast-system";
export const GATEWAY_NAME = "localhost";

/** Waits for a condition. */
export async function until<T>(what: string, look: () => T | Promise<T>, timeoutMs = 10_000): Promise<NonNullable<T>> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false && found !== null) return found as NonNullable<T>;
    if (Date.now() > end) throw new Error(`Not within ${timeoutMs} ms: ${what}`);
    await Bun.sleep(10);
  }
}

/** A log that can be read. */
export class HeardLog implements Log {
  readonly lines: { readonly message: string; readonly fields: LogFields }[] = [];
  info = (message: string, fields: LogFields = {}) => void this.lines.push({ message, fields });
  warn = this.info;
  error = this.info;
  of(message: string) {
    return this.lines.filter((line) => line.message === message).map(({ fields }) => fields);
  }
}

/** What a kubelet is to do with a connection. */
export type Kubelet = (socket: Socket) => void;

/** Says back what it hears, and ends when the other side has. */
export const echo: Kubelet = (socket) => void socket.pipe(socket);

export class TunnelWorld implements AsyncDisposable {
  readonly #stops: (() => Promise<void> | void)[] = [];
  readonly directory = mkdtempSync(join(tmpdir(), "gateway-"));
  #gateways = 0;

  private constructor(readonly api: ApiServer) {}

  static async start(nodes: readonly string[] = ["edge-1"], labels: Readonly<Record<string, string>> = {}) {
    const api = await startApiServer({
      objects: [
        ...nodes.map((name) => ({ apiVersion: "v1", kind: "Node", metadata: { name, labels } })),
        { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } },
      ],
    });
    api.put({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "extension-apiserver-authentication", namespace: "kube-system" },
      data: { "client-ca-file": api.cluster.ca },
    });
    return new TunnelWorld(api);
  }

  /** A gateway; each has a loopback address of its own, as pods have. */
  async startGateway(options: Partial<GatewayOptions> = {}) {
    const index = ++this.#gateways;
    const host = `127.0.7.${index}`;
    const serving = this.api.cluster.servingCertificate([GATEWAY_NAME, host]);
    const files = { cert: join(this.directory, `${index}.crt`), key: join(this.directory, `${index}.key`) };
    writeFileSync(files.cert, serving.cert);
    writeFileSync(files.key, serving.key);
    const admin = this.api.cluster.clientCertificate("gateway", ["system:masters"]);
    const log = new HeardLog();
    const stop = new AbortController();
    const daemon: GatewayDaemon = await startGateway({
      target: {
        server: this.api.url,
        caPem: () => this.api.cluster.ca,
        credential: {
          kind: "certificate",
          read: () => ({ certPem: admin.cert, keyPem: admin.key }),
        } as GatewayOptions["target"]["credential"],
      },
      namespace: NAMESPACE,
      listen: { host, port: 0 },
      listenPlain: { host, port: 0 },
      healthListen: { host, port: 0 },
      doorHost: host,
      handoverPort: 0,
      podAddress: host,
      mode: { kind: "port", address: host },
      isShared: false,
      ports: { first: 21_000, last: 29_999 },
      nodeSelector: "",
      allowFrom: [],
      names: [GATEWAY_NAME, host],
      tlsFiles: files,
      clientCaFile: undefined,
      clock: systemClock,
      log,
      signal: stop.signal,
      ...options,
      limits: { drainMs: 1_000, ...options.limits },
    });
    let isStopped = false;
    const gateway = {
      host,
      daemon,
      log,
      files,
      url: `https://${host}:${daemon.port}`,
      async stop() {
        if (isStopped) return;
        isStopped = true;
        stop.abort(new Error("over"));
        await daemon.ended;
      },
    };
    this.#stops.push(gateway.stop);
    return gateway;
  }

  /** A node's agent, and its kubelet. */
  async startAgent(
    gateways: readonly string[],
    options: { readonly node?: string; readonly kubelet?: Kubelet } & Partial<AgentParts> = {},
  ) {
    const { node = "edge-1", kubelet = echo, ...parts } = options;
    const server = await listening(createServer({ allowHalfOpen: true }, kubelet));
    const { port } = server.address() as AddressInfo;
    const pair = this.api.cluster.clientCertificate(`system:node:${node}`, ["system:nodes"]);
    const log = new HeardLog();
    const findings: (string | undefined)[] = [];
    const stop = new AbortController();
    const agent = new Agent({
      gateways,
      caPem: () => this.api.cluster.ca,
      pair: () => ({ certPem: pair.cert, keyPem: pair.key }),
      proxyFor: () => undefined,
      targets: () => [{ host: "127.0.0.1", port }],
      onStream: () => {},
      clock: systemClock,
      log,
      random: Math.random,
      signal: stop.signal,
      onFinding: (finding) => void findings.push(finding?.reason),
      ...parts,
    });
    agent.start();
    const ended = () => {
      stop.abort();
      agent.stop();
      server.close();
    };
    this.#stops.push(ended);
    return { agent, log, findings, server, stop: ended, place: () => placeOf(agent) };
  }

  async [Symbol.asyncDispose]() {
    for (const stop of this.#stops.toReversed()) await stop();
    await this.api[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true });
  }
}

/** The place once it is shown. */
export async function placeOf(agent: Agent): Promise<{ readonly host: string; readonly port: number }> {
  const place = await until("the agent has a place", () => agent.current());
  return { host: place.addresses[0]!.address, port: place.port };
}

/** Dials as the API server does, says something, and reads to the end. */
export async function ask(place: { host: string; port: number }, words: string | Buffer): Promise<Buffer> {
  const socket = connect({ ...place, allowHalfOpen: true });
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("end", () => resolve(Buffer.concat(chunks)));
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("closed without an end")));
  socket.end(words);
  return await promise;
}

async function listening(server: Server): Promise<Server> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
