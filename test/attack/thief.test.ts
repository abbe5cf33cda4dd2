/**
 * A thief with the card: everything that lies in the state folder, and a
 * machine of their own; the sealing key lies elsewhere, as a systemd credential.
 */

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { isBuilt, startBinary } from "../support/binary.ts";
import { MAPS, NODE, SECRET_TEXT, SECRETS, startWorld } from "./world.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-thief-"));
const card = join(folder, "card");
const credentials = join(folder, "credentials");
let token = "";
let world: Awaited<ReturnType<typeof startWorld>>;

beforeAll(async () => {
  if (!isBuilt) return;
  mkdirSync(credentials, { mode: 0o700 });
  writeFileSync(join(credentials, "holdfast-seal-key"), crypto.getRandomValues(new Uint8Array(32)));
  world = await startWorld({ stateDir: card, env: { CREDENTIALS_DIRECTORY: credentials }, mayPods: () => true });
  token = world.podToken();
  const pod = world.holdfast.clientWith({ token });
  for (const client of [world.kubelet, pod])
    for (const path of [MAPS, SECRETS, `${SECRETS}/password`]) expect((await client.get(path)).status).toBe(200);
  const request = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { audiences: [], expirationSeconds: 3_600 },
  };
  await world.kubelet.request("POST", "/api/v1/namespaces/shop/serviceaccounts/web/token", {
    body: JSON.stringify(request),
    headers: { "Content-Type": "application/json" },
  });
  await world.holdfast.stop();
  await world.api.cut();
});
afterAll(async () => {
  if (isBuilt) await world[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

function copied(name: string): string {
  cpSync(card, join(folder, name), { recursive: true });
  return join(folder, name);
}

/** The thief's own machine: Holdfast on a copy of the card, at the owner's API server, which it cannot reach. */
async function read(api: ApiServer, stateDir: string, path: string, env = {}) {
  await using holdfast = await startBinary({ apiServer: api, stateDir, env });
  // What cannot be opened breaks an answer off once, and is known to be damaged from then on.
  const { status, body } = await holdfast.client.get(path).catch(() => holdfast.client.get(path));
  return { status, text: body.toString() };
}

describe.skipIf(!isBuilt)("a thief with the card (needs dist/)", () => {
  test("finds no Secret's text and no token in any file", () => {
    const files = readdirSync(card, { recursive: true, encoding: "utf8" }).map((name) => join(card, name));
    const texts = files.filter((path) => statSync(path).isFile()).map((path) => readFileSync(path));
    expect(texts.some((bytes) => bytes.includes("configmaps"))).toBe(true);
    const marks = [SECRET_TEXT, Buffer.from(SECRET_TEXT, "base64").toString(), token, token.split(".")[2]!];
    for (const bytes of texts) for (const mark of marks) expect(bytes.includes(mark)).toBe(false);
  });

  test("without the credential Holdfast itself shows no Secret; with it, it does", async () => {
    expect(await read(world.api, copied("without"), SECRETS)).toMatchObject({ status: 503 });
    const owner = await read(world.api, copied("owner"), SECRETS, { CREDENTIALS_DIRECTORY: credentials });
    expect(owner).toMatchObject({ status: 200, text: expect.stringContaining(SECRET_TEXT) });
  });

  test("a row that was given another caller's name is served to nobody", async () => {
    const stateDir = copied("rewritten");
    const database = new Database(join(stateDir, "cache.db"));
    const node = `certificate:system:node:${NODE}`;
    const rows = database.query("SELECT id, identity FROM scopes").all() as { id: number; identity: string }[];
    const maps = rows.filter(({ identity }) => identity.includes("configmaps"));
    const own = maps.find(({ identity }) => identity.includes(node))!;
    const pods = maps.find(({ identity }) => !identity.includes(node))!;
    database.run("DELETE FROM scopes WHERE id = ?", [own.id]);
    expect(database.run("UPDATE scopes SET identity = ? WHERE id = ?", [own.identity, pods.id]).changes).toBe(1);
    database.close();
    const stolen = await read(world.api, stateDir, MAPS, { CREDENTIALS_DIRECTORY: credentials });
    expect(stolen.status).toBe(503);
  });

  test("at an API server of the thief's own nothing of the card is served", async () => {
    await using theirs = await startApiServer({
      objects: [{ kind: "Node", apiVersion: "v1", metadata: { name: NODE } }],
    });
    const answer = await read(theirs, copied("theirs"), MAPS, { CREDENTIALS_DIRECTORY: credentials });
    expect(answer.text).not.toContain('"name":"a"');
  });
});
