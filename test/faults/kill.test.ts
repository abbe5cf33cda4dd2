/**
 * Two hundred SIGKILLs of the binary while the cloud changes: whatever it
 * answers afterwards was once the truth, whole.
 */

import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { Client } from "../support/client.ts";
import { configMap } from "../support/edge.ts";

const binary =
  process.env["HOLDFAST_BINARY"] ?? join(import.meta.dir, "..", "..", "dist", `holdfast-linux-${process.arch}`);
const folder = mkdtempSync(join(tmpdir(), "holdfast-kills-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = `${LIST}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;
const KILLS = 200;
const NAMES = Array.from({ length: 30 }, (_, index) => `c-${index}`);

test.skipIf(!existsSync(binary))(
  `${KILLS} kills under churn: old or new, never a third thing (needs dist/)`,
  async () => {
    await using apiServer = await startApiServer({ objects: [configMap("c-0", { turn: "0" })] });
    const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
    const kubeconfig = join(folder, "kubeconfig");
    const stateDir = join(folder, "state");
    writeFileSync(kubeconfig, apiServer.kubeconfig({ user: "admin", keyPair: pair }));
    /** Every state an object ever had: "name@resourceVersion" to its turn. */
    const history = new Map<string, string>();
    let turn = 0;
    const change = () => {
      const name = NAMES[Math.floor(Math.random() * NAMES.length)]!;
      if (Math.random() < 0.15 && name !== "c-0") return void apiServer.remove("ConfigMap", "shop", name);
      const { metadata } = apiServer.put(
        configMap(name, { turn: String(++turn), pad: "p".repeat(Math.random() * 2_000) }),
      ) as any;
      history.set(`${name}@${metadata.resourceVersion}`, String(turn));
    };
    const first = apiServer.object("ConfigMap", "shop", "c-0") as any;
    history.set(`c-0@${first.metadata.resourceVersion}`, "0");
    const churn = setInterval(change, 3);
    let answeredOffline = 0;
    try {
      for (let kill = 0; kill < KILLS; kill++) {
        const isCut = kill % 10 === 9;
        if (isCut) await apiServer.cut();
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
        const child = Bun.spawn([binary, "run", ...args], { stderr: "pipe", stdout: "ignore" });
        let port = 0;
        for await (const line of createInterface({ input: Readable.fromWeb(child.stderr as never) })) {
          port = Number(/"message":"serving","ports":"(\d+)"/.exec(line)?.[1] ?? 0);
          if (port > 0) break;
        }
        expect(port).toBeGreaterThan(0);
        const ca = readFileSync(join(stateDir, "pki", "local-ca.crt"), "utf8");
        const client = new Client({ url: `https://127.0.0.1:${port}`, ca, ...pair });
        if (isCut) {
          const reply = await client.get(LIST);
          expect(reply.status).toBe(200);
          const { items, metadata } = reply.json();
          for (const item of items) {
            const key = `${item.metadata.name}@${item.metadata.resourceVersion}`;
            expect(`${key} ${item.data.turn}`).toBe(`${key} ${history.get(key)}`);
            expect(Number(item.metadata.resourceVersion)).toBeLessThanOrEqual(Number(metadata.resourceVersion));
          }
          expect(new Set(items.map((item: any) => item.metadata.name)).size).toBe(items.length);
          answeredOffline++;
        } else {
          const watch = await client.watch(STREAM);
          await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));
          await Bun.sleep(Math.random() * 40);
          watch.close();
        }
        child.kill("SIGKILL");
        await child.exited;
        client.close();
        if (isCut) await apiServer.heal();
      }
    } finally {
      clearInterval(churn);
    }
    expect(answeredOffline).toBe(KILLS / 10);
  },
  300_000,
);
