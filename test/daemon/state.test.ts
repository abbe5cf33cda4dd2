import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askStatus } from "../../src/cli/ask-status.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { credentialProblem } from "../../src/store/seal.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-state-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a state folder that cannot be written at the first start is a condition, and fails readyz by name; clients are answered all the same", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  const blocked = join(folder, "a-file");
  writeFileSync(blocked, "");
  const adminSocket = join(folder, "admin.sock");
  await using edge = await startEdge({
    apiServer,
    stateDir: join(blocked, "state"),
    config: `adminSocket: ${adminSocket}\n`,
  });
  const reply = await eventually(
    async () => {
      const answer = await fetch(`${edge.healthUrl}/readyz`);
      return `${answer.status} ${await answer.text()}`;
    },
    (text) => text.includes("[+]link ok"),
  );
  expect(reply).toStartWith("503 ");
  expect(reply).toContain("[-]store failed: the state folder cannot be written (ENOTDIR)");
  const answer = await askStatus(adminSocket);
  if (!answer.isFine) throw new Error(answer.problem);
  expect(answer.report.conditions.find(({ type }) => type === "StoreInMemory")).toMatchObject({
    reason: "ENOTDIR",
    next: expect.stringContaining("df -h"),
  });
});

test.each([
  ["too short", "short", "it has 5 bytes, and a key has 32 or more"],
  ["empty", "", "it has 0 bytes, and a key has 32 or more"],
  ["long enough", "x".repeat(32), undefined],
])("a sealing credential that is %s", (name, content, problem) => {
  const directory = join(folder, `credentials-${name}`);
  mkdirSync(directory);
  writeFileSync(join(directory, "holdfast-seal-key"), content);
  expect(credentialProblem(directory)).toBe(problem);
});

test("a sealing credential that is a folder says so; none is no problem", () => {
  const directory = join(folder, "credentials-folder");
  mkdirSync(join(directory, "holdfast-seal-key"), { recursive: true });
  expect(credentialProblem(directory)).toBe("it cannot be read (EISDIR)");
  expect(credentialProblem("")).toBeUndefined();
  expect(credentialProblem(folder)).toBeUndefined();
});

test("a sealing credential that is no use is a condition with the command that makes one", async () => {
  const directory = join(folder, "credentials");
  mkdirSync(directory);
  writeFileSync(join(directory, "holdfast-seal-key"), "short");
  const before = process.env["CREDENTIALS_DIRECTORY"];
  process.env["CREDENTIALS_DIRECTORY"] = directory;
  try {
    await using apiServer = await startApiServer();
    await using edge = await startEdge({ apiServer });
    const answer = await askStatus(join(edge.stateDir, "admin.sock"));
    if (!answer.isFine) throw new Error(answer.problem);
    const found = answer.report.conditions.find(({ type }) => type === "SealingKeyUnusable");
    expect(found).toMatchObject({
      message: expect.stringContaining("it has 5 bytes"),
      next: expect.stringContaining("systemd-creds encrypt"),
    });
  } finally {
    if (before === undefined) delete process.env["CREDENTIALS_DIRECTORY"];
    else process.env["CREDENTIALS_DIRECTORY"] = before;
  }
});
