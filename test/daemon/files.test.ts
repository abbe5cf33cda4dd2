import { describe, expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthority, issueClientCertificate } from "../../src/certificates/authority.ts";
import { askStatus } from "../../src/cli/ask-status.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";

function folder(): string {
  return mkdtempSync(join(tmpdir(), "holdfast-files-"));
}

async function conditions(edge: Edge): Promise<string[]> {
  const answer = await askStatus(join(edge.stateDir, "admin.sock"));
  if (!answer.isFine) throw new Error(answer.problem);
  return answer.report.conditions.map(({ type, message, next }) => `${type}: ${message}. ${next}`);
}

/** A kubeconfig of files, each of which a test replaces. */
function kubeconfigOf(apiServer: ApiServer, caFile: string, user: object): string {
  return JSON.stringify({
    clusters: [{ name: "c", cluster: { server: apiServer.url, "certificate-authority": caFile } }],
    users: [{ name: "u", user }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  });
}

async function statusOf(edge: Edge, pair: { certPem: string; keyPem: string }): Promise<number> {
  const client = edge.clientWith({ cert: pair.certPem, key: pair.keyPem });
  try {
    return (await client.get(LIST)).status;
  } finally {
    client.close();
  }
}

describe("a CA that is renewed, old and new side by side, then new alone", () => {
  test("counts for local clients without a restart, and the old one's clients are turned away at the end", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    const authorities = ["old", "new"].map((commonName) => createAuthority({ commonName, nowMs: Date.now() }));
    const [before, after] = authorities.map((authority) =>
      issueClientCertificate(authority, { commonName: "admin", organizations: ["system:masters"] }),
    );
    const caFile = join(folder(), "clients.crt");
    writeFileSync(caFile, authorities[0]!.certPem);
    await using edge = await startEdge({ apiServer, config: `clientCAFile: ${caFile}\n` });
    expect([await statusOf(edge, before!), await statusOf(edge, after!)]).toEqual([200, 401]);
    writeFileSync(caFile, authorities[0]!.certPem + authorities[1]!.certPem);
    await eventually(
      () => statusOf(edge, after!),
      (status) => status === 200,
    );
    expect(await statusOf(edge, before!)).toBe(200);
    writeFileSync(caFile, authorities[1]!.certPem);
    await eventually(
      // One that is open when the CA changes is let go in the middle of what it asks.
      () => statusOf(edge, before!).catch(() => 0),
      (status) => status === 401,
    );
    expect(await statusOf(edge, after!)).toBe(200);
  });

  test("counts upstream without a restart; until it is there a condition says what is shown and what to do", async () => {
    let apiServer = await startApiServer({ objects: [configMap("a")] });
    const dir = folder();
    const [caFile, tokenFile] = [join(dir, "ca.crt"), join(dir, "token")];
    writeFileSync(caFile, apiServer.cluster.ca);
    writeFileSync(tokenFile, "t");
    const options = { port: apiServer.port, tokens: { t: { name: "admin", groups: ["system:masters"] } } };
    const kubeconfig = kubeconfigOf(apiServer, caFile, { tokenFile });
    const first = apiServer.cluster.ca;
    await apiServer[Symbol.asyncDispose]();
    apiServer = await startApiServer(options);
    try {
      await using edge = await startEdge({ apiServer, kubeconfig });
      const found = await eventually(
        () => conditions(edge),
        (all) => all.some((text) => text.startsWith("AuthorityMismatch")),
      );
      expect(found.join("\n")).toMatch(/is signed by (another CA|itself) .*openssl s_client -connect 127\.0\.0\.1:\d+/);
      writeFileSync(caFile, first + apiServer.cluster.ca);
      await eventually(
        () => conditions(edge),
        (all) => all.length === 0,
      );
      const bearer = edge.clientWith({ token: "t" });
      expect((await bearer.get(LIST)).status).toBe(200);
      writeFileSync(caFile, apiServer.cluster.ca);
      expect((await bearer.get(LIST)).status).toBe(200);
    } finally {
      await apiServer[Symbol.asyncDispose]();
    }
  });
});

test("a wrong token is a condition and fails readyz by name; the right one in its file ends both without a restart", async () => {
  await using apiServer = await startApiServer({ tokens: { right: { name: "admin", groups: ["system:masters"] } } });
  const dir = folder();
  const [caFile, tokenFile] = [join(dir, "ca.crt"), join(dir, "token")];
  writeFileSync(caFile, apiServer.cluster.ca);
  writeFileSync(tokenFile, "wrong");
  await using edge = await startEdge({ apiServer, kubeconfig: kubeconfigOf(apiServer, caFile, { tokenFile }) });
  const readyz = async (query = "") => {
    const reply = await fetch(`${edge.healthUrl}/readyz${query}`);
    return `${reply.status} ${await reply.text()}`;
  };
  const red = await eventually(
    () => readyz(),
    (text) => text.includes("[-]certificate failed"),
  );
  expect(red).toStartWith("503 ");
  expect((await conditions(edge)).join("\n")).toMatch(/^CredentialRefused: .*\(401\).*kubectl --kubeconfig/m);
  expect(await (await fetch(`${edge.healthUrl}/metrics`)).text()).toContain(
    'holdfast_condition{type="CredentialRefused"} 1',
  );
  writeFileSync(tokenFile, "right");
  await eventually(
    () => readyz(),
    (text) => text === "200 ok",
  );
  expect(await conditions(edge)).toEqual([]);
});

test("a file whose new content is no use is a condition that names it, and what was read before goes on", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  const authority = createAuthority({ commonName: "clients", nowMs: Date.now() });
  const pair = issueClientCertificate(authority, { commonName: "admin", organizations: ["system:masters"] });
  const caFile = join(folder(), "clients.crt");
  writeFileSync(caFile, authority.certPem);
  await using edge = await startEdge({ apiServer, config: `clientCAFile: ${caFile}\n` });
  writeFileSync(caFile, authority.certPem.slice(0, 200));
  const found = await eventually(
    () => conditions(edge),
    (all) => all.length > 0,
  );
  expect(found.join("\n")).toContain(`FileUnusable: Cannot use CA file "${caFile}"`);
  expect(await statusOf(edge, pair)).toBe(200);
  writeFileSync(caFile, authority.certPem);
  await eventually(
    () => conditions(edge),
    (all) => all.length === 0,
  );
});
