/**
 * The binary as a process, started on bad input: it ends at once and in words,
 * or it starts and says what is wrong.
 */

import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { binary, isBuilt, startBinary } from "../support/binary.ts";
import { eventually } from "../support/client.ts";
import { configMap } from "../support/edge.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-start-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const LIST = "/api/v1/namespaces/shop/configmaps";
const MARKER = "marker-in-a-key-5d1c";

/** Runs to its end; bad input must not take longer than a person waits. */
async function fails(args: readonly string[]): Promise<{ readonly code: number; readonly text: string }> {
  const child = Bun.spawn(
    [
      binary,
      "run",
      "--state-dir",
      mkdtempSync(join(folder, "s-")),
      "--listen",
      "127.0.0.1:0",
      "--health-listen",
      "127.0.0.1:0",
      ...args,
    ],
    { stderr: "pipe", stdout: "ignore" },
  );
  const text = await new Response(child.stderr).text();
  return { code: await child.exited, text };
}

function file(name: string, text: string): string {
  const path = join(mkdtempSync(join(folder, "f-")), name);
  writeFileSync(path, text);
  return path;
}

async function start(apiServer: ApiServer, stateDir: string, kubeconfig?: string) {
  const running = await startBinary({
    ...{ apiServer, stateDir, user: "admin" },
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
  });
  return { ...running, metrics: async () => (await fetch(`${running.healthUrl}/metrics`)).text() };
}

describe.skipIf(!isBuilt)("holdfast run (needs dist/)", () => {
  test.each([
    ["no kubeconfig", () => [], "--kubeconfig"],
    ["a kubeconfig that is not there", () => ["--kubeconfig", "/nowhere/kubeconfig"], "/nowhere/kubeconfig"],
    ["a kubeconfig that is a folder", () => ["--kubeconfig", folder], folder],
    ["an empty kubeconfig", () => ["--kubeconfig", file("k", "")], "kubeconfig"],
    ["no YAML", () => ["--kubeconfig", file("k", `a: [${MARKER}`)], "YAML"],
    ["an unknown flag", () => ["--kubeconfg", "x"], "--kubeconfg"],
    ["an address of the network", () => ["--listen", "0.0.0.0:1", "--kubeconfig", "/nowhere"], "/nowhere"],
  ])("%s ends it with a message that says what to mend", async (_name, args, expected) => {
    const { code, text } = await fails(args());
    expect(code).toBeGreaterThan(0);
    expect(text).toContain(expected);
    expect(text).toContain("holdfast help run");
    expect(text).not.toContain(MARKER);
  });

  test("a kubeconfig without CA names the field; one whose key is another's prints no key", async () => {
    await using apiServer = await startApiServer();
    const withoutCa = Bun.YAML.parse(apiServer.kubeconfig({ user: "admin" })) as any;
    delete withoutCa.clusters[0].cluster["certificate-authority-data"];
    const first = await fails(["--kubeconfig", file("k", JSON.stringify(withoutCa))]);
    expect(first.code).toBe(1);
    expect(first.text).toContain("certificate-authority-data");
    const other = Bun.YAML.parse(apiServer.kubeconfig({ user: "admin" })) as any;
    const { key } = apiServer.cluster.clientCertificate("x");
    other.users[0].user["client-key-data"] = Buffer.from(key).toString("base64");
    const second = await fails(["--kubeconfig", file("k", JSON.stringify(other))]);
    expect(second.code).toBe(1);
    expect(second.text).toContain("client-key");
    expect(second.text).not.toContain(other.users[0].user["client-key-data"].slice(0, 40));
  });

  test("an unknown field of the configuration is named with its line", async () => {
    const config = file(
      "config.yaml",
      "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nlistenn: 127.0.0.1:1\n",
    );
    const { code, text } = await fails(["--kubeconfig", "/nowhere", "--config", config]);
    expect(code).toBe(1);
    expect(text).toMatch(/3/);
    expect(text).toContain("listenn");
    expect(text).toContain('"listen"');
  });

  test("a taken port is named with its flag", async () => {
    await using apiServer = await startApiServer();
    const taken = net.createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as net.AddressInfo;
    const kubeconfig = file("k", apiServer.kubeconfig({ user: "admin" }));
    const { code, text } = await fails(["--kubeconfig", kubeconfig, "--listen", `127.0.0.1:${port}`]);
    taken.close();
    expect(code).toBe(1);
    expect(text).toContain(`127.0.0.1:${port}`);
    expect(text).toContain("--listen");
  });

  test("an expired certificate and unknown fields are warnings, not the end", async () => {
    await using apiServer = await startApiServer();
    const old = apiServer.cluster.clientCertificate("admin", [], {
      notBeforeMs: Date.now() - 7_200_000,
      notAfterMs: Date.now() - 3_600_000,
    });
    const document = Bun.YAML.parse(apiServer.kubeconfig({ user: "admin", keyPair: old })) as any;
    document.oddity = 1;
    await using holdfast = await start(apiServer, join(folder, "expired"), JSON.stringify(document));
    expect(holdfast.log.join("\n")).toContain("expired");
    expect(holdfast.log.join("\n")).toContain("oddity");
  });

  test("a state folder that is missing is made for root alone; a damaged database is set aside and told", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    const stateDir = join(folder, "made", "deep");
    {
      await using holdfast = await start(apiServer, stateDir);
      expect(statSync(stateDir).mode & 0o777).toBe(0o700);
      expect(
        (
          await eventually(
            () => holdfast.client.get(LIST),
            ({ status }) => status === 200,
          )
        ).json().items,
      ).toHaveLength(1);
    }
    writeFileSync(join(stateDir, "cache.db"), Buffer.alloc(8_192, 7));
    await using again = await start(apiServer, stateDir);
    expect(
      (
        await eventually(
          () => again.client.get(LIST),
          ({ status }) => status === 200,
        )
      ).json().items,
    ).toHaveLength(1);
    expect(await again.metrics()).toMatch(/holdfast_store_quarantined [1-9]/);
  });

  test("a state folder that cannot be made means memory, and it is told", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    const stateDir = join(folder, "cannot");
    mkdirSync(stateDir);
    // Even root cannot make a file where a folder of its name stands.
    mkdirSync(join(stateDir, "cache.db"));
    await using holdfast = await start(apiServer, stateDir);
    expect(
      (
        await eventually(
          () => holdfast.client.get(LIST),
          ({ status }) => status === 200,
        )
      ).json().items,
    ).toHaveLength(1);
    await apiServer.cut();
    expect((await holdfast.client.get(LIST)).json().items).toHaveLength(1);
  });
});
