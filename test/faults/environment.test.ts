/**
 * The program as a process in environments that people and images give it.
 */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askStatus } from "../../src/cli/ask-status.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { Client, eventually } from "../support/client.ts";
import { configMap } from "../support/edge.ts";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");
const folder = mkdtempSync(join(tmpdir(), "holdfast-environment-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs it from source, in front of an API server; `prefix` goes before the command. */
function run(kubeconfig: string, env: Readonly<Record<string, string>>, prefix: readonly string[] = [], port = 0) {
  const stateDir = mkdtempSync(join(folder, "s-"));
  const path = join(stateDir, "kubeconfig");
  writeFileSync(path, kubeconfig);
  const places = ["--listen", `127.0.0.1:${port}`, "--health-listen", "127.0.0.1:0", "--state-dir", stateDir];
  const child = Bun.spawn([...prefix, process.execPath, main, "run", "--kubeconfig", path, ...places], {
    env: { PATH: process.env["PATH"] ?? "", HOME: folder, ...env },
    stdout: "ignore",
    stderr: "pipe",
  });
  const text = new Response(child.stderr).text();
  return {
    child,
    text,
    stateDir,
    link: async () => {
      const answer = await askStatus(join(stateDir, "admin.sock"));
      return answer.isFine ? answer.report.link : undefined;
    },
    async [Symbol.asyncDispose]() {
      child.kill();
      await child.exited;
    },
  };
}

function clientOf(stateDir: string, port: number, { cluster }: ApiServer): Client {
  return new Client({
    url: `https://127.0.0.1:${port}`,
    ca: readFileSync(join(stateDir, "pki", "local-ca.crt"), "utf8"),
    ...cluster.clientCertificate("admin", ["system:masters"]),
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await eventually(() => server.listening);
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const admin = (apiServer: ApiServer, server?: string) =>
  apiServer.kubeconfig({ user: "admin", groups: ["system:masters"], ...(server === undefined ? {} : { server }) });

test.each(["NODE_TLS_REJECT_UNAUTHORIZED=0", "BUN_CONFIG_VERBOSE_FETCH=curl"])(
  "%s ends the start with words, before anybody is asked anything",
  async (setting) => {
    await using apiServer = await startApiServer();
    const [name = "", value = ""] = setting.split("=");
    await using holdfast = run(admin(apiServer), { [name]: value });
    expect(await holdfast.child.exited).toBe(1);
    const said = await holdfast.text;
    expect(said).toContain(`holdfast run: Cannot start with ${name}`);
    expect(said).not.toMatch(/\n\s+at /);
    expect(apiServer.requests).toHaveLength(0);
  },
);

test("a proxy in the environment is not used for an API server on loopback", async () => {
  await using apiServer = await startApiServer();
  let asked = 0;
  const proxy = createServer((socket) => {
    asked++;
    socket.destroy();
  }).listen(0, "127.0.0.1");
  await eventually(() => proxy.listening);
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const env = { HTTPS_PROXY: url, https_proxy: url, HTTP_PROXY: url, ALL_PROXY: url };
  const listen = await freePort();
  await using holdfast = run(admin(apiServer), env, [], listen);
  await eventually(holdfast.link, (link) => link?.state === "online", 20_000);
  // A watch goes another way than a list.
  const client = clientOf(holdfast.stateDir, listen, apiServer);
  const watch = await client.watch("/api/v1/configmaps?watch=true&resourceVersion=0&allowWatchBookmarks=true");
  apiServer.put(configMap("a"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "a"));
  client.close();
  expect(asked).toBe(0);
  proxy.close();
});

const canMount = process.getuid?.() === 0 && Bun.spawnSync(["unshare", "-m", "true"]).exitCode === 0;
test.skipIf(!canMount)(
  `a name whose address is dead is asked anew at once${canMount ? "" : " (needs root, for a hosts file of its own)"}`,
  async () => {
    const first = await startApiServer({ host: "127.0.0.2", servingNames: ["api.test"] });
    const { port, cluster } = first;
    const hosts = join(folder, "hosts");
    const point = (address: string) => writeFileSync(hosts, `127.0.0.1 localhost\n${address} api.test\n`);
    point("127.0.0.2");
    const prefix = ["unshare", "-m", "sh", "-c", `mount --bind ${hosts} /etc/hosts && exec "$@"`, "sh"];
    const listen = await freePort();
    await using holdfast = run(admin(first, `https://api.test:${port}`), {}, prefix, listen);
    await eventually(holdfast.link, (link) => link?.state === "online", 20_000);
    const client = clientOf(holdfast.stateDir, listen, first);
    expect((await client.get("/api/v1/nodes")).status).toBe(200);
    await first[Symbol.asyncDispose]();
    await eventually(
      () => client.get("/api/v1/nodes/none"),
      ({ status }) => status === 503,
      20_000,
    );
    await using second = await startApiServer({ host: "127.0.0.3", port, cluster, servingNames: ["api.test"] });
    point("127.0.0.3");
    const movedMs = performance.now();
    await eventually(holdfast.link, (link) => link?.state === "online", 20_000);
    // A probe each second while offline; the runtime alone remembers the old address for half a minute.
    expect(performance.now() - movedMs).toBeLessThan(5_000);
    expect(second.requests.length).toBeGreaterThan(0);
    client.close();
  },
);
