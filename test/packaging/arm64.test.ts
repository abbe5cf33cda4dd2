/**
 * The arm64 executable at work under an emulator, as the processors of small
 * gateways: read, cut, stopped, started again, answered from what was kept. The
 * runtime has twice been built for newer processors than those.
 *
 * Skipped by name where it is not built (`bun run build`) or nothing of arm64
 * runs (packages qemu-user-static, binfmt-support, libc6-arm64-cross).
 */

import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { projectRoot } from "../../scripts/setup.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { Client } from "../support/client.ts";
import { configMap } from "../support/edge.ts";

const binary = join(projectRoot, "dist/holdfast-linux-arm64");
const folder = mkdtempSync(join(tmpdir(), "holdfast-arm64-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
/** By binfmt: `run` executes itself anew, which no emulator on the command line would outlive. */
const emulated = (cpu: string) => ({
  PATH: process.env["PATH"] ?? "",
  QEMU_CPU: cpu,
  QEMU_LD_PREFIX: process.arch === "arm64" ? "/" : "/usr/aarch64-linux-gnu",
});
const LIST = "/api/v1/namespaces/shop/configmaps";

function whyNot(): string | undefined {
  if (!existsSync(binary)) return "dist/holdfast-linux-arm64 is not built";
  try {
    const { stdout } = Bun.spawnSync([binary, "version"], { env: emulated("cortex-a72"), timeout: 60_000 });
    return stdout.toString().startsWith("holdfast ") ? undefined : "nothing of arm64 runs here";
  } catch {
    return "nothing of arm64 runs here";
  }
}

/** Starts it and waits until it serves. */
async function start(cpu: string, kubeconfig: string, stateDir: string) {
  const args = [
    "--kubeconfig",
    kubeconfig,
    "--state-dir",
    stateDir,
    "--listen",
    "127.0.0.1:0",
    "--health-listen",
    "127.0.0.1:0",
  ];
  const child = Bun.spawn([binary, "run", ...args], { env: emulated(cpu), stderr: "pipe", stdout: "ignore" });
  let port = 0;
  let last = "";
  for await (const line of createInterface({ input: Readable.fromWeb(child.stderr as never) })) {
    last = line;
    port = Number(/"message":"serving","ports":"(\d+)"/.exec(line)?.[1] ?? 0);
    if (port > 0) break;
  }
  if (port === 0) throw new Error(`it ended before it served: ${last}`);
  const ca = readFileSync(join(stateDir, "pki", "local-ca.crt"), "utf8");
  return {
    client: (pair: Pick<ConstructorParameters<typeof Client>[0], "cert" | "key">) =>
      new Client({ url: `https://127.0.0.1:${port}`, ca, ...pair }),
    async stop() {
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
    },
  };
}

const why = whyNot();
describe.skipIf(why !== undefined)(`the arm64 executable${why === undefined ? "" : ` [skipped: ${why}]`}`, () => {
  test.each(["cortex-a53", "cortex-a72", "cortex-a76"])(
    "serves, is stopped, and serves on without the API server as a %s",
    async (cpu) => {
      await using apiServer = await startApiServer({ objects: [configMap("settings", { greeting: "hello" })] });
      const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
      const kubeconfig = join(folder, `${cpu}.kubeconfig`);
      const stateDir = join(folder, cpu);
      writeFileSync(kubeconfig, apiServer.kubeconfig({ user: "admin", keyPair: pair }));
      const first = await start(cpu, kubeconfig, stateDir);
      const online = await first.client(pair).get(LIST);
      expect(online.status).toBe(200);
      await first.stop();
      await apiServer.cut();
      const second = await start(cpu, kubeconfig, stateDir);
      const offline = await second.client(pair).get(LIST);
      await second.stop();
      expect(offline.status).toBe(200);
      expect(offline.json().items).toEqual(online.json().items);
    },
    180_000,
  );
});
