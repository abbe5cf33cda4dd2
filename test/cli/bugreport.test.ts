import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allowedLines, MAX_BYTES, packed } from "../../src/cli/bugreport.ts";
import { Redactor } from "../../src/cli/redactor.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { configMap, startEdge } from "../support/edge.ts";
import { holdfast } from "./holdfast.ts";

test("a report holds what helps, and no name, address, token, key or object", async () => {
  const token = "token-of-somebody-secret";
  await using apiServer = await startApiServer({
    objects: [
      { apiVersion: "v1", kind: "Node", metadata: { name: "edge-of-acme" } },
      configMap("acme-settings", { password: "hunter2" }, "acme-shop"),
    ],
  });
  apiServer.addToken(token, { name: "acme-operator", groups: [] });
  const keyPair = apiServer.cluster.clientCertificate("system:node:edge-of-acme", ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ keyPair });
  await using edge = await startEdge({ apiServer, node: "edge-of-acme", kubeconfig });
  expect((await edge.client.get("/api/v1/namespaces/acme-shop/configmaps?labelSelector=owner%3Dacme")).status).toBe(
    200,
  );
  expect((await edge.clientWith({ token }).get("/api/v1/namespaces/acme-shop/configmaps")).status).toBe(200);
  const dir = mkdtempSync(join(tmpdir(), "holdfast-bugreport-"));
  const path = join(dir, "kubeconfig");
  writeFileSync(path, kubeconfig);
  const args = ["--state-dir", edge.stateDir, "--kubeconfig", path];
  const { code, stdout } = await holdfast("bugreport", "--preview", ...args);
  expect(code).toBe(0);
  expect([...stdout.matchAll(/^==> (\S+) <==$/gm)].map(([, name]) => name)).toEqual([
    "system.json",
    "status.json",
    "check.json",
    "config.yaml",
    "metrics.txt",
    "log.jsonl",
  ]);
  expect(stdout).toContain('"resource": "configmaps"');
  for (const secret of ["acme", "hunter2", token, "PRIVATE KEY", Bun.hash(token).toString(16)])
    expect(stdout).not.toContain(secret);
  const file = join(dir, "report.tar.gz");
  expect((await holdfast("bugreport", "--output-file", file, ...args)).code).toBe(0);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const inside = await new Bun.Archive(Bun.gunzipSync(readFileSync(file))).files();
  expect(inside.size).toBe(6);
  for (const content of inside.values()) expect(await content.text()).not.toContain("acme");
  // What is there is nobody's to replace.
  expect(await holdfast("bugreport", "--output-file", file, ...args)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("EEXIST"),
  });
}, 20_000);

test("without a daemon it still packs what it can", async () => {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-bugreport-"));
  const { code, stdout } = await holdfast("bugreport", "--preview", "--state-dir", dir);
  expect(code).toBe(0);
  expect(stdout).toContain("no daemon answers on");
});

test("of log lines the named fields go in, and nothing that is no line of ours", () => {
  const lines = allowedLines(
    `${JSON.stringify({ time: "t", level: "warn", message: "m", reason: "r", pod: "acme/web", count: 3, isIt: true })}\nsegfault at acme\n`,
  ).split("\n");
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    { time: "t", level: "warn", message: "m", reason: "r", count: 3, isIt: true },
    { otherLinesLeftOut: 1 },
  ]);
});

test.each([
  ["a token", `x eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln y`, "x (removed) y"],
  ["a key", "a -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- b", "a (removed) b"],
  ["an Authorization", "Authorization: Bearer abc.def", "Authorization: (removed)"],
  ["a proxy's password", "http://me:pw@proxy:3128", "http:(removed)proxy:3128"],
  ["an address", "dial 10.1.2.3:6443", "dial address-1:6443"],
  ["loopback", "dial 127.0.0.1:10268", "dial 127.0.0.1:10268"],
  ["an address of IPv6", "dial [2001:db8::17]:6443", "dial [address-1]:6443"],
  ["a time", "at 03:04:17", "at 03:04:17"],
])("%s is taken out, or left", (_, text, clean) => {
  expect(new Redactor(false).clean(text)).toBe(clean);
});

test("one name is one word everywhere, and the longer name is not torn by the shorter", () => {
  const redactor = new Redactor(false);
  redactor.learn("pod", ["web", "shop", "shop-web-0", "default"]);
  expect(redactor.clean("shop/shop-web-0 in default, shop again")).toBe("pod-1/pod-2 in default, pod-1 again");
  const keeping = new Redactor(true);
  keeping.learn("pod", ["shop"]);
  expect(keeping.clean("shop 10.1.2.3 Bearer abc")).toBe("shop 10.1.2.3 (removed)");
});

test("it stays below 2 MB whatever there is to say, and the oldest goes first", async () => {
  const noise = Array.from(
    { length: 60_000 },
    (_, index) => `${index} ${Bun.hash(String(index)).toString(36)}${Bun.hash(`b${index}`).toString(36)}`,
  ).join("\n");
  const bytes = await packed(
    new Map([
      ["log.jsonl", noise.repeat(2)],
      ["system.json", "{}"],
    ]),
  );
  expect(bytes.length).toBeLessThanOrEqual(MAX_BYTES);
  const inside = await new Bun.Archive(Bun.gunzipSync(Uint8Array.from(bytes))).files();
  expect(await inside.get("system.json")!.text()).toBe("{}");
  expect(noise.endsWith((await inside.get("log.jsonl")!.text()).slice(-1_000))).toBe(true);
});
