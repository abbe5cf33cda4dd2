/**
 * A process on the node without a credential: it reads nothing, leaves no mark,
 * and takes nothing from kubelet.
 */

import { describe, expect, test } from "bun:test";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as tls from "node:tls";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { isBuilt } from "../support/binary.ts";
import { eventually } from "../support/client.ts";
import { MAPS, PODS, SECRETS, sent, startWorld } from "./world.ts";

const RUNS_AS_OTHER = process.getuid?.() === 0 && Bun.which("setpriv") !== null;

describe.skipIf(!isBuilt)("a process without a credential (needs dist/)", () => {
  test("gets 401 on every path, online and cut, and 400 where it claims to be somebody", async () => {
    await using world = await startWorld();
    await world.kubelet.get(SECRETS);
    const ofSecrets = () => world.api.requests.filter(({ resource }) => resource === "secrets");
    const nobody = world.holdfast.clientWith({});
    const claims = [
      {},
      { "User-Agent": "kubelet/v1.37.2 (linux/amd64)" },
      { "X-Remote-User": "system:node:edge-1", "X-Remote-Group": "system:nodes" },
      { "Impersonate-User": "admin" },
    ];
    const paths = [
      PODS,
      SECRETS,
      `${SECRETS}/password`,
      "/version",
      "/healthz",
      "/metrics",
      `${MAPS}?watch=true&timeoutSeconds=1`,
    ];
    const answered = async () => {
      const statuses = new Set<number>();
      for (const path of paths) for (const claim of claims) statuses.add((await nobody.get(path, claim)).status);
      return [...statuses].sort();
    };
    // The follower of what kubelet has just listed opens its watch once.
    await eventually(() => ofSecrets().some(({ verb }) => verb === "watch"));
    const asked = ofSecrets().length;
    expect(await answered()).toEqual([400, 401]);
    expect(ofSecrets().slice(asked)).toEqual([]);
    await world.cut();
    expect(await answered()).toEqual([400, 401]);
  });

  test("with a certificate of a CA of its own is nobody, whatever subject stands in it", async () => {
    await using world = await startWorld();
    await world.kubelet.get(SECRETS);
    const rogue = world.holdfast.clientWith(
      mintCluster("rogue").clientCertificate("system:node:edge-1", ["system:nodes"]),
    );
    expect((await rogue.get(SECRETS)).status).toBe(401);
    await world.cut();
    expect((await rogue.get(SECRETS)).status).toBe(401);
  });

  test("leaves no scope, no commit and no line, with made-up tokens or requests that are none", async () => {
    await using world = await startWorld();
    await world.settle();
    const commits = await world.metric("holdfast_store_commits_total");
    const scopes = await world.metric("holdfast_scopes");
    const lines = world.holdfast.log.length;
    for (let n = 0; n < 100; n++)
      expect((await world.holdfast.clientWith({ token: `made-up-${n}` }).get(`${MAPS}?resourceVersion=0`)).status).toBe(
        401,
      );
    for (const [text, code] of [
      ["GET /api HTTP/2.0\r\nHost: localhost\r\n\r\n", 505],
      ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
      ["GET / HTTP/1.1\nHost: localhost\n\n", 400],
      ["CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 401],
      [`GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${"t".repeat(100_000)}\r\n\r\n`, 431],
    ] as const) {
      const { received } = await sent(world, text);
      expect(received.slice(0, 13)).toBe(`HTTP/1.1 ${code} `);
    }
    expect(await world.metric("holdfast_scopes")).toBe(scopes);
    await world.settle();
    expect(await world.metric("holdfast_store_commits_total")).toBe(commits);
    expect(world.holdfast.log.slice(lines)).toEqual([]);
  });

  test("reads no key and no socket, with another user's rights", async () => {
    await using world = await startWorld();
    await eventually(() => statSync(world.holdfast.socket, { throwIfNoEntry: false }));
    const open = [
      ...modesUnder(world.holdfast.stateDir),
      [world.holdfast.socket, statSync(world.holdfast.socket)] as const,
    ]
      .filter(([, { mode }]) => (mode & 0o077) !== 0)
      .map(([path]) => path.slice(world.holdfast.stateDir.length))
      // Certificates are for everybody.
      .filter((path) => !path.endsWith(".crt"));
    expect(open).toEqual([]);
    expect(statSync(world.holdfast.stateDir).mode & 0o077).toBe(0);
    if (!RUNS_AS_OTHER) return;
    const { exitCode } = Bun.spawnSync([
      "setpriv",
      "--reuid",
      "65534",
      "cat",
      join(world.holdfast.stateDir, "cache.db"),
    ]);
    expect(exitCode).not.toBe(0);
  });

  test("that takes two thousand connections, or a hundred handshakes at once, leaves kubelet its own", async () => {
    await using world = await startWorld();
    const held: tls.TLSSocket[] = [];
    const hold = () => {
      const socket = tls.connect({ host: "127.0.0.1", port: world.holdfast.port, rejectUnauthorized: false });
      socket.on("error", () => {});
      held.push(socket);
      return new Promise((resolve) => socket.once("secureConnect", resolve).once("close", resolve));
    };
    try {
      for (let round = 0; round < 21; round++) await Promise.all(Array.from({ length: 100 }, hold));
      world.kubelet.close();
      for (let n = 0; n < 20; n++)
        expect((await world.kubelet.request("GET", PODS, { agent: false })).status).toBe(200);
    } finally {
      for (const socket of held) socket.destroy();
    }
  }, 30_000);
});

function modesUnder(folder: string) {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .map((path) => [path, statSync(path)] as const);
}
