/**
 * Holdfast in this process, between a test's client and its API server.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock, type Clock } from "../../src/base/clock.ts";
import { jsonLog } from "../../src/base/log.ts";
import { loadConfig } from "../../src/config/config.ts";
import { startDaemon, type Daemon } from "../../src/daemon/daemon.ts";
import type { ApiServer } from "../../src/demo/api-server/api-server.ts";
import { Client, eventually } from "./client.ts";

/** A running Holdfast and a client on the kubeconfig's own certificate. */
export interface Edge extends AsyncDisposable {
  readonly daemon: Daemon;
  readonly stateDir: string;
  readonly url: string;
  readonly client: Client;
  readonly healthUrl: string;
  readonly log: string[];
  /** Another client: a token, another certificate, or nothing. */
  clientWith(credential: { readonly token?: string; readonly cert?: string; readonly key?: string }): Client;
  /** Stops and starts again on the same state and port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts Holdfast in front of an API server. */
export async function startEdge(options: {
  readonly apiServer: ApiServer;
  readonly stateDir?: string;
  readonly limits?: string;
  readonly env?: Record<string, string>;
  readonly kubeconfig?: string;
  readonly config?: string;
  readonly clock?: Clock;
  /** As whom the edge itself goes up, and its client with it: a node, instead of an administrator. */
  readonly node?: string;
  readonly machineRoot?: string;
}): Promise<Edge> {
  const { apiServer } = options;
  const folder = mkdtempSync(join(tmpdir(), "holdfast-test-"));
  const stateDir = options.stateDir ?? join(folder, "state");
  const kubeconfigPath = join(folder, "kubeconfig");
  const [user, groups] =
    options.node === undefined ? ["admin", ["system:masters"]] : [`system:node:${options.node}`, ["system:nodes"]];
  const pair = apiServer.cluster.clientCertificate(user, groups);
  writeFileSync(kubeconfigPath, options.kubeconfig ?? apiServer.kubeconfig({ user, groups, keyPair: pair }));
  const configPath = join(folder, "config.yaml");
  writeFileSync(
    configPath,
    `apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n${options.config ?? ""}${options.limits === undefined ? "" : `limits: ${options.limits}\n`}`,
  );
  const log: string[] = [];
  let stop = new AbortController();
  let port = 0;
  const start = () => {
    stop = new AbortController();
    const { config } = loadConfig(
      {
        kubeconfig: kubeconfigPath,
        listen: [`127.0.0.1:${port}`],
        healthListen: "127.0.0.1:0",
        stateDir,
        config: configPath,
      },
      options.env ?? {},
    );
    return startDaemon({
      config,
      clock: options.clock ?? systemClock,
      log: jsonLog((line) => log.push(line)),
      version: "test",
      signal: stop.signal,
      ...(options.machineRoot === undefined ? {} : { machineRoot: options.machineRoot }),
    });
  };
  let daemon = await start();
  port = daemon.ports[0]!;
  const clients: Client[] = [];
  const clientWith = (credential: { readonly token?: string; readonly cert?: string; readonly key?: string }) => {
    const client = new Client({
      url: `https://127.0.0.1:${port}`,
      ca: localCa(stateDir),
      ...credential,
    });
    clients.push(client);
    return client;
  };
  const end = async () => {
    stop.abort();
    await daemon.ended;
  };
  return {
    get daemon() {
      return daemon;
    },
    stateDir,
    url: `https://127.0.0.1:${port}`,
    client: clientWith(pair),
    get healthUrl() {
      return `http://127.0.0.1:${daemon.healthPort}`;
    },
    log,
    clientWith,
    async restart() {
      await end();
      // Kept connections of the old listener are dead, as they would be to any client.
      for (const client of clients) client.close();
      daemon = await start();
    },
    stop: end,
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close();
      await end();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** "" where the state folder cannot be written: such a client trusts nobody. */
function localCa(stateDir: string): string {
  const path = join(stateDir, "pki", "local-ca.crt");
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/**
 * Cuts and restores the API server's link; each returns when Holdfast has noticed.
 *
 * @param client is answered `/healthz` by the API server: 503 while cut.
 */
export function linkOf(apiServer: ApiServer, client: Client) {
  const isOffline = (wanted: boolean) =>
    eventually(
      () => client.get("/healthz"),
      ({ status }) => (status === 503) === wanted,
    );
  return {
    async cut(): Promise<void> {
      await apiServer.cut();
      await isOffline(true);
    },
    async heal(): Promise<void> {
      await apiServer.heal();
      await isOffline(false);
    },
  };
}

/** A ConfigMap as the API server keeps it. */
export function configMap(name: string, data: Record<string, string> = {}, namespace = "shop") {
  return { kind: "ConfigMap", apiVersion: "v1", metadata: { name, namespace }, data };
}
