import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog, type Log } from "../../src/base/log.ts";
import { startAdmin, type AdminOptions } from "../../src/health/admin.ts";
import { report } from "./report.ts";

const get = (path: string, target: string, method = "GET") =>
  fetch(`http://holdfast${target}`, { unix: path, method } as RequestInit);

function setUp(name = "run/admin.sock") {
  const path = join(mkdtempSync(join(tmpdir(), "holdfast-admin-")), name);
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (message, fields) => void warnings.push(`${message}: ${fields?.["reason"]}`) };
  let flushes = 0;
  const options: AdminOptions = {
    path,
    status: () => report(),
    coverage: () => Promise.resolve(undefined),
    rehearse: () => Promise.resolve("not here"),
    renewPin: () => ({ pin: "" }),
    flush: () => void flushes++,
    objects: () => [],
    certificates: () => Promise.resolve({ status: 200, message: "" }),
    log,
  };
  return { path, warnings, options, flushes: () => flushes };
}

test("status and flush are answered, to the owner alone", async () => {
  const { path, options, flushes } = setUp();
  const admin = await startAdmin(options);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(statSync(join(path, "..")).mode & 0o777).toBe(0o700);
  expect(await (await get(path, "/v1/status")).json()).toEqual(report());
  expect((await get(path, "/v1/flush", "POST")).status).toBe(204);
  expect(flushes()).toBe(1);
  expect((await get(path, "/v1/flush")).status).toBe(404);
  expect((await get(path, "/v1/nothing")).status).toBe(404);
  admin.stop();
  expect(existsSync(path)).toBe(false);
});

test("a mask that forbids nothing leaves the socket to its owner, and is put back", async () => {
  const { path, options } = setUp();
  const before = process.umask(0);
  try {
    const admin = await startAdmin(options);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(process.umask()).toBe(0);
    admin.stop();
  } finally {
    process.umask(before);
  }
});

test("a socket that a killed daemon left is replaced", async () => {
  const { path, options, warnings } = setUp("admin.sock");
  const leave = Bun.spawnSync([
    process.execPath,
    "-e",
    `Bun.serve({ unix: ${JSON.stringify(path)}, fetch: () => new Response() }); process.kill(process.pid, "SIGKILL")`,
  ]);
  expect(leave.signalCode).toBe("SIGKILL");
  expect(existsSync(path)).toBe(true);
  const admin = await startAdmin(options);
  expect((await get(path, "/v1/status")).status).toBe(200);
  expect(warnings).toEqual([]);
  admin.stop();
});

test("a socket on which somebody answers is left alone, with a warning", async () => {
  const { path, options, warnings } = setUp("admin.sock");
  const { promise, resolve } = Promise.withResolvers<void>();
  const other = createServer().listen(path, resolve);
  await promise;
  const admin = await startAdmin(options);
  expect(warnings).toEqual(["admin socket not opened: holdfast status will not work: another daemon answers on it"]);
  admin.stop();
  expect(existsSync(path)).toBe(true);
  other.close();
});

test("a file in the socket's place is never removed", async () => {
  const { path, options, warnings } = setUp("precious");
  writeFileSync(path, "kept");
  const admin = await startAdmin(options);
  admin.stop();
  expect(readFileSync(path, "utf8")).toBe("kept");
  expect(warnings.join()).toContain("no socket is in its place");
});

test("a status that cannot be made is an error in JSON, and the socket lives on", async () => {
  const { path, options } = setUp();
  const admin = await startAdmin({
    ...options,
    status: () => {
      throw new RangeError("no");
    },
  });
  const reply = await get(path, "/v1/status");
  expect([reply.status, await reply.json()]).toEqual([500, { error: "RangeError: no" }]);
  expect((await get(path, "/v1/flush", "POST")).status).toBe(204);
  admin.stop();
});
