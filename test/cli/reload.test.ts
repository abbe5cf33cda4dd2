import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LevelledLog, textLog } from "../../src/base/log.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";

const MAIN = join(import.meta.dir, "..", "..", "src", "main.ts");

test("SIGHUP takes up the level, names what takes a restart, and keeps the former where the new is no use", async () => {
  await using apiServer = await startApiServer();
  const dir = mkdtempSync(join(tmpdir(), "holdfast-reload-"));
  const config = join(dir, "config.yaml");
  const write = (body: string) =>
    writeFileSync(
      config,
      `apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nkubeconfig: kubeconfig\nstateDir: state\nlisten: 127.0.0.1:0\nhealthListen: 127.0.0.1:0\n${body}`,
    );
  writeFileSync(join(dir, "kubeconfig"), apiServer.kubeconfig({ user: "admin", groups: ["system:masters"] }));
  write("logLevel: info\n");
  const child = Bun.spawn([process.execPath, MAIN, "run", "--config", config], {
    env: { PATH: process.env["PATH"]! },
    stdout: "ignore",
    stderr: "pipe",
  });
  const lines: any[] = [];
  const reading = (async () => {
    let rest = "";
    for await (const part of child.stderr) {
      const all = (rest + Buffer.from(part).toString()).split("\n");
      rest = all.pop()!;
      lines.push(...all.map((line) => JSON.parse(line)));
    }
  })();
  const heard = (message: string, times = 1) =>
    eventually(
      () => lines.filter((line) => line.message === message),
      (found) => found.length >= times,
    );
  await heard("serving");
  write("logLevel: error\nlimits: {linger: 1m}\n");
  child.kill("SIGHUP");
  expect((await heard("configuration read again"))[0]).toMatchObject({ level: "info", logLevel: "error" });
  const before = lines.length;
  await apiServer.cut();
  write("logLevle: info\n");
  child.kill("SIGHUP");
  expect((await heard("the configuration cannot be used, the former stands"))[0].reason).toContain(
    'unknown field "logLevle"',
  );
  // The link's loss is a warning, and warnings are not wanted.
  expect(lines.slice(before).every(({ level }) => level === "error")).toBe(true);
  write("logLevel: info\nlimits: {linger: 1m}\n");
  child.kill("SIGHUP");
  await heard("configuration read again", 2);
  expect((await heard("these take a restart"))[0].fields).toContain("limits");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  await reading;
}, 30_000);

test("on a terminal a line is words, with fields behind them", () => {
  const lines: string[] = [];
  const log = new LevelledLog(
    textLog((line) => lines.push(line)),
    "warn",
  );
  log.info("not wanted");
  log.warn("link lost", { reason: "no answer", ports: "10268", of: undefined });
  log.always("read again");
  expect(lines.map((line) => line.replace(/^\d\d:\d\d:\d\d /, ""))).toEqual([
    'WARN  link lost reason="no answer" ports=10268',
    "INFO  read again",
  ]);
});
