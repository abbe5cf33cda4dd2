/**
 * The compiled binary as a process between a test's client and its API server.
 *
 * `bun run test` builds `dist/` before; HOLDFAST_BINARY names another one.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import type { ApiServer } from "../../src/demo/api-server/api-server.ts";
import { Client } from "./client.ts";

/** Where the executable is. */
export const binary =
  process.env["HOLDFAST_BINARY"] ?? join(import.meta.dir, "..", "..", "dist", `holdfast-linux-${process.arch}`);
/** Whether it was built. */
export const isBuilt = existsSync(binary);

/** How to start it; by default as the node `edge-1` of the API server's cluster. */
export interface BinaryOptions {
  readonly apiServer: ApiServer;
  /** A folder that outlives the process; by default one that goes with it. */
  readonly stateDir?: string;
  readonly kubeconfig?: string;
  readonly config?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** CN of the configured credential. */
  readonly user?: string;
}

/** A running binary. */
export interface RunningBinary extends AsyncDisposable {
  readonly pid: number;
  readonly port: number;
  readonly healthUrl: string;
  readonly stateDir: string;
  readonly socket: string;
  readonly ca: string;
  /** Everything it has logged. */
  readonly log: string[];
  /** On the configured credential's own certificate. */
  readonly client: Client;
  clientWith(credential: { readonly token?: string; readonly cert?: string; readonly key?: string }): Client;
  stop(signal?: "SIGTERM" | "SIGKILL"): Promise<void>;
}

/** Starts it, and returns when it serves. */
export async function startBinary(options: BinaryOptions): Promise<RunningBinary> {
  const { apiServer, user = "system:node:edge-1" } = options;
  const folder = mkdtempSync(join(tmpdir(), "holdfast-binary-"));
  const stateDir = options.stateDir ?? join(folder, "state");
  const groups = user.startsWith("system:node:") ? ["system:nodes"] : ["system:masters"];
  const pair = apiServer.cluster.clientCertificate(user, groups);
  const path = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const kubeconfig = path("kubeconfig", options.kubeconfig ?? apiServer.kubeconfig({ user, groups, keyPair: pair }));
  const socket = join(folder, "run", "admin.sock");
  const config = path(
    "config.yaml",
    `apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nadminSocket: ${socket}\n${options.config ?? ""}`,
  );
  const places = ["--kubeconfig", kubeconfig, "--config", config, "--state-dir", stateDir];
  const child = Bun.spawn([binary, "run", ...places, "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"], {
    stderr: "pipe",
    stdout: "ignore",
    cwd: folder,
    env: { ...process.env, ...options.env },
  });
  const log: string[] = [];
  const serving = Promise.withResolvers<RegExpExecArray>();
  createInterface({ input: Readable.fromWeb(child.stderr as never) }).on("line", (line) => {
    log.push(line);
    const ports = /"message":"serving","ports":"(\d+)","health":(\d+)/.exec(line);
    if (ports !== null) serving.resolve(ports);
  });
  void child.exited.then((code) => serving.reject(new Error(`holdfast run ended with ${code}: ${log.join("\n")}`)));
  const [, port, health] = await serving.promise;
  const ca = readFileSync(join(stateDir, "pki", "local-ca.crt"), "utf8");
  const clients: Client[] = [];
  const clientWith = (credential: { readonly token?: string; readonly cert?: string; readonly key?: string }) => {
    const client = new Client({ url: `https://127.0.0.1:${port}`, ca, ...credential });
    clients.push(client);
    return client;
  };
  const stop = async (signal: "SIGTERM" | "SIGKILL" = "SIGTERM") => {
    for (const client of clients) client.close();
    child.kill(signal);
    await child.exited;
  };
  return {
    ...{ pid: child.pid, port: Number(port), healthUrl: `http://127.0.0.1:${health}`, stateDir, socket, ca, log },
    client: clientWith(pair),
    clientWith,
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
