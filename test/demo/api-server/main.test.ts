import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "../../contract/client.ts";

test("the process says where it is, writes credentials, and obeys lines of input", async () => {
  const dir = mkdtempSync(join(tmpdir(), "api-server-test-"));
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dir, "../../../src/demo/api-server/main.ts"), "--dir", dir, "--slices", "20"],
    { stdin: "pipe", stdout: "pipe" },
  );
  const lines = linesOf(child.stdout);
  const ask = async (command: string) => {
    child.stdin.write(`${command}\n`);
    child.stdin.flush();
    return await lines();
  };
  try {
    const { url, ca, kubeconfig } = await lines();
    const { users } = JSON.parse(readFileSync(kubeconfig, "utf8"));
    const decoded = (field: string) => Buffer.from(users[0].user[field], "base64").toString();
    using client = new Client({
      url,
      ca: readFileSync(ca, "utf8"),
      cert: decoded("client-certificate-data"),
      key: decoded("client-key-data"),
    });
    const slices = await client.get("/apis/discovery.k8s.io/v1/endpointslices");
    expect(slices.json.items).toHaveLength(20);
    expect(slices.json.items[0] && JSON.stringify(slices.json.items[0]).length).toBeGreaterThan(1500);
    expect(await ask('put ConfigMap {"metadata":{"namespace":"shop","name":"new"},"data":{"a":"1"}}')).toMatchObject({
      ok: true,
      object: { data: { a: "1" } },
    });
    expect((await client.get("/api/v1/namespaces/shop/configmaps/new")).json.data).toEqual({ a: "1" });
    expect(await ask("log")).toMatchObject({
      ok: true,
      next: 2,
      requests: [{ method: "GET", user: "admin", status: 200 }, {}],
    });
    expect(await ask("nonsense")).toMatchObject({ ok: false });
    expect(await ask("cut")).toEqual({ ok: true });
    await expect(client.get("/livez")).rejects.toThrow();
    expect(await ask("heal")).toEqual({ ok: true });
    expect((await client.get("/livez")).text).toBe("ok");
  } finally {
    child.stdin.end();
    await child.exited;
    rmSync(dir, { recursive: true });
  }
  expect(child.exitCode).toBe(0);
});

function linesOf(stream: ReadableStream<Uint8Array>): () => Promise<any> {
  const reader = stream.getReader();
  let text = "";
  return async () => {
    while (!text.includes("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`output ended at "${text}"`);
      text += Buffer.from(value).toString();
    }
    const line = text.slice(0, text.indexOf("\n"));
    text = text.slice(line.length + 1);
    return JSON.parse(line);
  };
}
