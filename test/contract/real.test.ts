/**
 * The contract, held against a real API server.
 *
 * HOLDFAST_CONTRACT_KUBECONFIG names a kubeconfig of a cluster administrator;
 * the suite makes and removes a namespace and a CustomResourceDefinition.
 */

import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { test } from "bun:test";
import type { Target } from "./client.ts";
import { contractSuite } from "./suite.ts";

const file = process.env["HOLDFAST_CONTRACT_KUBECONFIG"];

if (file) contractSuite("a real API server", async () => targetOf(readFileSync(file, "utf8")));
else test.skip("a real API server follows the contract (needs HOLDFAST_CONTRACT_KUBECONFIG)", () => {});

function targetOf(kubeconfig: string): Target {
  const { clusters, users } = parse(kubeconfig);
  const read = (from: any, field: string) =>
    from[`${field}-data`]
      ? Buffer.from(from[`${field}-data`], "base64").toString()
      : from[field]
        ? readFileSync(from[field], "utf8")
        : undefined;
  const { cluster } = clusters[0];
  const { user } = users[0];
  const cert = read(user, "client-certificate");
  const key = read(user, "client-key");
  return {
    url: cluster.server,
    ca: read(cluster, "certificate-authority")!,
    ...(cert && key ? { cert, key } : {}),
    ...(user.token ? { token: user.token } : {}),
  };
}
