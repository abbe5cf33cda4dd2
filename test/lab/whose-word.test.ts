/**
 * Whose word an answer is, held against a real API server: in every form that
 * it negotiates none of its answers is a stranger's, and only its Status refuses.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { titled, whySkipped } from "./requirements.ts";
import { startWorld } from "./world.ts";

const JSON_TYPE = "application/json";
const PROTOBUF = "application/vnd.kubernetes.protobuf";
const YAML = "application/yaml";
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io";
const DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const PODS = "/api/v1/namespaces/default/pods";
const review = JSON.stringify({ kind: "SelfSubjectReview", apiVersion: "authentication.k8s.io/v1" });
const allForms = [JSON_TYPE, PROTOBUF, YAML, TABLE, "application/cbor", "*/*"];

type Row = readonly [method: string, target: string, accept: string, as: "admin" | "token" | "nobody", answer: string];
const ROWS: readonly Row[] = [
  ...allForms.map((accept): Row => ["GET", PODS, accept, "nobody", "401 refusal"]),
  ...allForms.map((accept): Row => ["GET", PODS, accept, "token", "403 refusal"]),
  ...[JSON_TYPE, PROTOBUF, YAML, TABLE].map((accept): Row => ["GET", PODS, accept, "admin", "200 answer"]),
  ...[JSON_TYPE, PROTOBUF].map((accept): Row => [
    "GET",
    `${PODS}?watch=true&timeoutSeconds=1`,
    accept,
    "admin",
    "200 answer",
  ]),
  ["GET", `${PODS}?watch=true`, JSON_TYPE, "token", "403 refusal"],
  ["GET", `${PODS}/none`, JSON_TYPE, "admin", "404 refusal"],
  ["GET", `${PODS}/none`, PROTOBUF, "admin", "404 refusal"],
  ["GET", "/api/v1/nothings", JSON_TYPE, "admin", "404 refusal"],
  ["GET", "/apis/nobody.example.com/v1/things", JSON_TYPE, "admin", "404 unsaid"],
  ["GET", PODS, "text/html", "admin", "406 refusal"],
  ["DELETE", `${PODS}/none`, JSON_TYPE, "admin", "404 refusal"],
  ["POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", JSON_TYPE, "token", "201 answer"],
  ["GET", "/version", JSON_TYPE, "token", "200 answer"],
  ["GET", "/version", JSON_TYPE, "nobody", "401 refusal"],
  ["GET", "/api", JSON_TYPE, "token", "200 answer"],
  ["GET", "/apis", JSON_TYPE, "token", "200 answer"],
  ["GET", "/apis", DISCOVERY, "token", "200 answer"],
  ["GET", "/apis/apps", JSON_TYPE, "token", "200 answer"],
  ["GET", "/apis/apps/v1", JSON_TYPE, "token", "200 answer"],
  ["GET", "/apis/apps/v1", PROTOBUF, "token", "200 answer"],
  ["GET", "/openapi/v2", JSON_TYPE, "token", "200 answer"],
  ["GET", "/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "token", "200 answer"],
  ["GET", "/openapi/v3", JSON_TYPE, "token", "200 answer"],
  ["GET", "/openapi/v3/apis/apps/v1", JSON_TYPE, "token", "200 answer"],
  ["GET", "/openapi/v3/apis/apps/v1?hash=0", JSON_TYPE, "token", "301 unsaid"],
  ["GET", "/openid/v1/jwks", "application/jwk-set+json", "admin", "200 answer"],
  ["GET", "/.well-known/openid-configuration", JSON_TYPE, "admin", "200 answer"],
  ["GET", "/healthz", "*/*", "token", "200 unsaid"],
  // Who is nobody in particular may see the whole and not its parts: the storage probe asks for the whole.
  ["GET", "/readyz/etcd", "*/*", "token", "403 refusal"],
  ["GET", "/livez", "*/*", "token", "200 unsaid"],
  ["GET", "/readyz", "*/*", "token", "200 unsaid"],
  ["GET", "/metrics", "*/*", "admin", "200 unsaid"],
  ["GET", "/metrics", "*/*", "token", "403 refusal"],
  ["GET", "/nothing/here", "*/*", "admin", "404 unsaid"],
  ["GET", "/", JSON_TYPE, "admin", "200 unsaid"],
  ["HEAD", PODS, JSON_TYPE, "admin", "405 unsaid"],
];

describe.skipIf(whySkipped !== undefined)(titled("whose word an answer is"), () => {
  test("a real API server's answers are its own, and its refusals are refusals, in every form", async () => {
    await using world = await startWorld();
    await world.createNamespace("default");
    const token = await world.tokenFor("nothing", ["get"], ["nothings"]);
    const asked = ROWS.map(([method, target, accept, as]) => ({
      ...{ method, target, accept, as },
      ...(method === "POST" ? { body: review } : {}),
    }));
    const { stdout, stderr } = await world.runAtEdge(
      [process.execPath, join(import.meta.dir, "ask-words.ts"), world.adminKubeconfig, token, JSON.stringify(asked)],
      {},
      120_000,
    );
    const answers = JSON.parse(stdout === "" ? `["${stderr.slice(0, 500)}"]` : stdout) as string[];
    const told = (answer: (row: Row, at: number) => string | undefined) =>
      ROWS.map((row, at) => `${row[0]} ${row[1]} ${row[2]} as ${row[3]}: ${answer(row, at)}`);
    expect(told((_, at) => answers[at])).toEqual(told(([, , , , answer]) => answer));
  });
});
