/**
 * Connections whose other end is gone without a word: what the kernel says of
 * them, and what becomes of who waits. On real connections: test/lab/faults.test.ts.
 */

import { afterEach, describe, expect, test } from "bun:test";
import * as net from "node:net";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { Cancel } from "../../src/base/cancel.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { mayHaveArrived } from "../../src/uplink/arrival.ts";
import { DeadSockets, type Mortal } from "../../src/uplink/dead-sockets.ts";
import { HeadPatience } from "../../src/uplink/head-patience.ts";
import { Http2Pool } from "../../src/uplink/http2-pool.ts";
import { Pool } from "../../src/uplink/pool.ts";
import type { PoolRequest } from "../../src/uplink/pool-request.ts";
import { eventually } from "../support/client.ts";
import { startFramedServer } from "../support/framed-server.ts";
import { ManualClock } from "../support/model.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

const HEAD =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n";

/** As the kernel writes it. @param sentAgain hexadecimal, as it is there. */
function line(local: number, remote: number, sentAgain: string, probes = 0, address = "0252C80A"): string {
  const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, "0");
  return `   7: ${address}:${hex(local)} ${address}:${hex(remote)} 01 000002F0:00000000 01:00000018 ${sentAgain}     0 ${String(probes).padStart(8)} 4515484 3 0000000000000000 20 0 0 10 -1 `;
}

describe("the kernel's table", () => {
  const ends = { localPort: 45_694, remotePort: 6_443 };

  test.each([
    ["what is sent for the third time again is dead", line(45_694, 6_443, "00000003"), true],
    ["the sixteenth, too", line(45_694, 6_443, "00000010"), true],
    ["the second is not", line(45_694, 6_443, "00000002"), false],
    ["three probes that nobody answered", line(45_694, 6_443, "00000000", 3), true],
    ["one of them", line(45_694, 6_443, "00000000", 1), false],
    ["another connection's", line(45_695, 6_443, "00000003"), false],
    ["the same port, to elsewhere", line(45_694, 443, "00000003"), false],
    ["IPv6", line(45_694, 6_443, "00000004", 0, "0000000000000000FFFF00000252C80A"), true],
    ["half a line", "   7: 0252C80A:B27E 0252C80A:192B 01", false],
  ])("%s", (_, text, isDead) => {
    const dead = new DeadSockets(() => HEAD + text);
    expect([dead.has(ends), dead.isEmpty]).toEqual([isDead, !isDead && !/another|elsewhere/.test(_)]);
    expect(dead.has(undefined)).toBe(false);
  });

  test("of this machine is read", async () => {
    const server = net.createServer(() => {}).listen(0, "127.0.0.1");
    cleanups.push(() => server.close());
    await new Promise((resolve) => server.once("listening", resolve));
    expect(new DeadSockets().isEmpty).toBe(true);
    expect(new DeadSockets(() => "nonsense\n\n").isEmpty).toBe(true);
  });
});

const ALL_DEAD = { has: () => true, isEmpty: false } as unknown as DeadSockets;
const cluster = mintCluster();
const tls = { ca: cluster.ca };
const asked = (method: string): PoolRequest => ({ method, target: "/a", headers: [], signal: new Cancel() });

/** An API server that hears on its first connection, says what is first asked for, and then nothing. */
async function forgetful() {
  let connections = 0;
  const heard: string[] = [];
  const serving = cluster.servingCertificate(["127.0.0.1"]);
  const server = Bun.listen<{ nth: number; requests: number }>({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert: serving.cert, key: serving.key },
    socket: {
      open: (socket) => void (socket.data = { nth: connections++, requests: 0 }),
      data(socket, bytes) {
        heard.push(`${socket.data.nth}: ${bytes.toString("latin1").split(" ", 1)[0]}`);
        if (socket.data.nth === 0 && socket.data.requests++ > 0) return;
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      },
    },
  });
  cleanups.push(() => server.stop(true));
  return { url: `https://127.0.0.1:${server.port}`, heard };
}

describe("a connection that is dead", () => {
  async function kept() {
    const { url, heard } = await forgetful();
    const standing = new Set<Mortal>();
    const pool = new Pool({ server: url, tls, clock: systemClock, standing });
    cleanups.push(() => pool.leaveBehind());
    await (await pool.request(asked("GET"))).bytes();
    return { heard, standing, pool };
  }

  test("a read that waits on it is sent once more, on a new one", async () => {
    const { heard, standing, pool } = await kept();
    const reading = pool.request(asked("GET"));
    await eventually(() => heard.length === 2);
    // Left behind meanwhile: it is looked at all the same.
    pool.leaveBehind();
    for (const connection of [...standing]) connection.endDead(ALL_DEAD);
    expect(Buffer.from(await (await reading).bytes()).toString()).toBe("ok");
    expect(heard).toEqual(["0: GET", "0: GET", "1: GET"]);
  });

  test("a write that waits on it fails, and has gone up once", async () => {
    const { heard, standing, pool } = await kept();
    const writing = pool.request(asked("POST"));
    await eventually(() => heard.length === 2);
    for (const connection of [...standing]) connection.endDead(ALL_DEAD);
    const failure = await writing.catch((error: unknown) => error);
    expect([(failure as { code?: unknown }).code, mayHaveArrived(failure)]).toEqual(["ETIMEDOUT", true]);
    expect(heard).toEqual(["0: GET", "0: POST"]);
    expect(standing.size).toBe(0);
  });

  test("those that rest have stood as long, and are not tried", async () => {
    const { heard, standing, pool } = await kept();
    const writing = pool.request(asked("POST"));
    await (await pool.request(asked("GET"))).bytes();
    await eventually(() => heard.length === 3);
    const [first] = standing;
    first!.endDead(ALL_DEAD);
    await expect(writing).rejects.toMatchObject({ code: "ETIMEDOUT" });
    await (await pool.request(asked("GET"))).bytes();
    expect(heard.at(-1)).toBe("2: GET");
  });

  test("over HTTP/2 its requests fail at once, a read goes again", async () => {
    let connections = 0;
    const server = await startFramedServer(cluster, {
      onWhole(connection, { id }) {
        if (connections === 1) connection.answer(id, "ok");
      },
    });
    cleanups.push(() => server.stop());
    const standing = new Set<Mortal>();
    const pool = new Http2Pool({ server: server.url, tls, clock: systemClock, standing });
    cleanups.push(() => pool.leaveBehind());
    connections = 1;
    await (await pool.request(asked("GET"))).bytes();
    connections = 0;
    const [reading, writing] = [pool.request(asked("GET")), pool.request(asked("PATCH"))];
    writing.catch(() => {});
    await Bun.sleep(50);
    connections = 1;
    for (const connection of [...standing]) connection.endDead(ALL_DEAD);
    expect(Buffer.from(await (await reading).bytes()).toString()).toBe("ok");
    await expect(writing).rejects.toMatchObject({ kind: "connection", code: "ETIMEDOUT" });
  });
});

test("who waits has the link looked at after a second, and the connections from four on, until the head is there", async () => {
  const clock = new ManualClock();
  const seen: string[] = [];
  let isDead = false;
  const standing = new Set<Mortal>([{ endDead: () => void seen.push(`looked at ${clock.monotonicMs() / 1_000}`) }]);
  const look = () => ({ has: () => true, isEmpty: !isDead }) as unknown as DeadSockets;
  const startMs = clock.monotonicMs();
  const patience = new HeadPatience({ clock, onWaiting: () => void seen.push("waiting") }, standing, look);
  const [first, second] = [patience.begin(), patience.begin()];
  await clock.pass(900);
  second();
  await clock.pass(4_000);
  expect(seen).toEqual(["waiting"]);
  isDead = true;
  await clock.pass(1_500);
  expect(seen.slice(1)).toEqual([5, 6].map((at) => `looked at ${startMs / 1_000 + at}`));
  first();
  await clock.pass(60_000);
  expect(seen).toHaveLength(3);
});

test("a look that takes long is not taken at once again: a fifth of the time at most", async () => {
  const clock = new ManualClock();
  let spentMs = 0;
  let looks = 0;
  const slow = { monotonicMs: () => clock.monotonicMs() + spentMs, after: clock.after.bind(clock) } as unknown as Clock;
  const look = () => {
    looks++;
    spentMs += 1_000;
    return { has: () => true, isEmpty: true } as unknown as DeadSockets;
  };
  const patience = new HeadPatience({ clock: slow, onWaiting() {} }, new Set(), look);
  const end = patience.begin();
  await clock.pass(30_000);
  end();
  expect(looks).toBeGreaterThan(2);
  expect(spentMs / (30_000 + spentMs)).toBeLessThanOrEqual(0.2);
});
