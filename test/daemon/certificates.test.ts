import { expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { certificateBlocks } from "../../src/certificates/pem.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const YEAR_MS = 365 * 86_400_000;

test("over thirty years the serving certificate and its CA are renewed without a restart, and a client that read the CA at the start finds its way", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  const clock = new ShiftedClock();
  const keyPair = apiServer.cluster.clientCertificate("admin", ["system:masters"], {
    notAfterMs: Date.UTC(2200, 0, 1),
  });
  const kubeconfig = apiServer.kubeconfig({ user: "admin", keyPair });
  await using edge = await startEdge({ apiServer, clock, kubeconfig });
  const pki = (name: string) => readFileSync(join(edge.stateDir, "pki", name), "utf8");
  const client = edge.clientWith(keyPair);
  const served = new Set([pki("serving.crt")]);
  for (let at = 0; at < 9; at++) {
    clock.forward(3 * YEAR_MS);
    served.add(pki("serving.crt"));
    client.close();
    // Three years without a word of the API server are a cut: it is over at the next look.
    await eventually(async () => (await client.get(LIST)).status === 200);
  }
  expect(served.size).toBeGreaterThanOrEqual(4);
  expect(certificateBlocks(pki("local-ca.crt"))).toHaveLength(2);
  const [leaf] = certificateBlocks(pki("serving.crt"));
  expect(new X509Certificate(leaf!).validToDate.getTime()).toBeGreaterThan(clock.nowMs() + 2 * YEAR_MS);
  expect(edge.log.filter((line) => line.includes("the local CA is renewed"))).toHaveLength(1);
}, 60_000);
