import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { startAdmin } from "../../src/health/admin.ts";
import type { Item, Shape } from "../../src/kube/codec.ts";
import { openStore } from "../../src/store/store.ts";
import { report } from "../health/report.ts";
import { holdfast } from "./holdfast.ts";

const principal = "certificate:system:node:gw-1|system:nodes";
const SECRET_DATA = "c2VjcmV0LXZhbHVl";

function item(object: { readonly metadata: { readonly namespace: string; readonly name: string } }): Item {
  return {
    meta: { ...object.metadata, uid: "u-1", resourceVersion: "41" },
    bytes: Buffer.from(JSON.stringify(object)),
  };
}

function kept(
  resource: string,
  kind: string,
  items: readonly Item[],
  contentType = "application/json",
): (store: ReturnType<typeof openStore>) => void {
  return (store) => {
    const copy = store.openCopy(
      {
        principal,
        group: "",
        version: "v1",
        resource,
        namespace: "",
        fieldSelector: "",
        labelSelector: "",
        representation: "json",
      },
      Date.now(),
    );
    const writer = copy.beginList();
    for (const one of items) writer.add(one);
    const shape: Shape = { listKind: `${kind}List`, apiVersion: "v1", isBare: true };
    writer.commit({ shape, contentType, resourceVersion: "42", nowMs: Date.now() }, () => {});
  };
}

const pod = item({ metadata: { namespace: "shop", name: "web-0" } });
const secret = item({
  metadata: {
    namespace: "shop",
    name: "login",
    annotations: { "kubectl.kubernetes.io/last-applied-configuration": `{"data":{"password":"${SECRET_DATA}"}}` },
  },
  data: { password: SECRET_DATA },
  type: "Opaque",
} as never);

function stateDir(...fill: readonly ((store: ReturnType<typeof openStore>) => void)[]): string {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-cache-"));
  const store = openStore({ stateDir: dir, clock: systemClock, log: silentLog, maxBytes: 1e9 });
  for (const one of fill) one(store);
  store.close();
  return dir;
}

const filled = () =>
  stateDir(kept("pods", "Pod", [pod]), kept("secrets", "Secret", [secret]), (store) =>
    store.putResponse(
      { principal, target: "/version", accept: "json" },
      { status: 200, headers: {}, body: Buffer.from("the-body"), storedAtMs: Date.UTC(2026, 0, 2) },
      { isSecret: false },
    ),
  );

test("cache ls lists scopes and recorded answers without their bodies", async () => {
  const dir = filled();
  const { code, stdout } = await holdfast("cache", "ls", "--state-dir", dir);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^pods +\(all\) +system:node:gw-1 +json +1 +\d+ B +42$/m);
  expect(stdout).toMatch(/^\/version +system:node:gw-1 +8 B +2026-01-02T00:00:00\.000Z$/m);
  expect(stdout).not.toContain("the-body");
  const json = JSON.parse((await holdfast("cache", "ls", "-o", "json", "--state-dir", dir)).stdout);
  expect(json.scopes.map(({ resource, items }: { resource: string; items: number }) => [resource, items])).toEqual([
    ["pods", 1],
    ["secrets", 1],
  ]);
  expect(json.answers).toHaveLength(1);
});

test("cache get prints one object as the API server would", async () => {
  const { code, stdout } = await holdfast("cache", "get", "pods", "shop/web-0", "--state-dir", filled());
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({ kind: "Pod", apiVersion: "v1", metadata: { namespace: "shop", name: "web-0" } });
});

test.each([[], ["-o", "json"], ["-o", "raw"]])(
  "cache get never prints a Secret's data unasked (%s %s)",
  async (...output) => {
    const { stdout, stderr } = await holdfast(
      "cache",
      "get",
      "secrets",
      "shop/login",
      "--state-dir",
      filled(),
      ...output.filter((part) => typeof part === "string"),
    );
    expect(stdout + stderr).not.toContain(SECRET_DATA);
  },
);

test("cache get leaves a Secret's keys and lengths, and prints it whole with --show-secrets", async () => {
  const dir = filled();
  const redacted = JSON.parse((await holdfast("cache", "get", "secrets", "shop/login", "--state-dir", dir)).stdout);
  expect(redacted.data).toEqual({ password: "(16 characters, shown with --show-secrets)" });
  expect(redacted.type).toBe("Opaque");
  for (const output of ["json", "raw"])
    expect(
      JSON.parse(
        (await holdfast("cache", "get", "secrets", "shop/login", "--state-dir", dir, "--show-secrets", "-o", output))
          .stdout,
      ).data,
    ).toEqual({ password: SECRET_DATA });
});

test("cache get of a Secret kept as protobuf prints nothing of it", async () => {
  const dir = stateDir(
    kept("secrets", "Secret", [{ ...secret, bytes: Buffer.from(SECRET_DATA) }], "application/vnd.kubernetes.protobuf"),
  );
  for (const output of [[], ["-o", "raw"]]) {
    const { code, stdout } = await holdfast("cache", "get", "secrets", "shop/login", "--state-dir", dir, ...output);
    expect([code, stdout]).toEqual([1, ""]);
  }
  expect(
    (await holdfast("cache", "get", "secrets", "shop/login", "--state-dir", dir, "--show-secrets")).stdout,
  ).toStartWith("# kept as application/vnd.kubernetes.protobuf");
});

test("cache get of what is not kept says so and names the next step", async () => {
  const dir = filled();
  expect(await holdfast("cache", "get", "pods", "web-0", "--state-dir", dir)).toEqual({
    code: 1,
    stdout: "",
    stderr: `holdfast cache: no pods "web-0" is kept\nSee: holdfast cache ls --state-dir ${dir}; an object in a namespace is named NAMESPACE/NAME\n`,
  });
});

test("cache verify counts rows and exits 1 when one is damaged, without changing the file", async () => {
  const dir = filled();
  expect(await holdfast("cache", "verify", "--state-dir", dir)).toMatchObject({
    code: 0,
    stdout: "3 rows checked, 0 damaged\n",
  });
  const database = new Database(join(dir, "cache.db"));
  database.run("UPDATE objects SET value = x'00' WHERE key = 'shop/web-0'");
  database.close();
  for (let i = 0; i < 2; i++)
    expect(await holdfast("cache", "verify", "--state-dir", dir)).toMatchObject({
      code: 1,
      stdout: "3 rows checked, 1 damaged\n",
    });
});

test("a folder without a cache, without its key, or with a broken file, is told apart", async () => {
  const empty = mkdtempSync(join(tmpdir(), "holdfast-cache-"));
  expect(await holdfast("cache", "ls", "--state-dir", empty)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(`nothing is kept in "${empty}"`),
  });
  const dir = filled();
  rmSync(join(dir, "keys"), { recursive: true });
  expect(await holdfast("cache", "verify", "--state-dir", dir)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("CREDENTIALS_DIRECTORY="),
  });
  expect(existsSync(join(dir, "keys"))).toBe(false);
  const broken = filled();
  for (const name of readdirSync(broken).filter((name) => name.startsWith("cache.db")))
    writeFileSync(join(broken, name), "x".repeat(5_000));
  expect(await holdfast("cache", "ls", "--state-dir", broken)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("cannot be opened"),
  });
});

test("a running daemon is asked to commit first, and its working from memory is told", async () => {
  const dir = filled();
  let flushes = 0;
  const admin = await startAdmin({
    path: join(dir, "admin.sock"),
    status: () => report({ store: { ...report().store, mode: "memory", reason: "ENOSPC" } }),
    coverage: () => Promise.resolve(undefined),
    rehearse: () => Promise.resolve("not here"),
    renewPin: () => ({ pin: "" }),
    flush: () => void flushes++,
    objects: () => [],
    certificates: () => Promise.resolve({ status: 200, message: "" }),
    log: silentLog,
  });
  const { code, stderr } = await holdfast("cache", "ls", "--state-dir", dir);
  expect([code, flushes]).toEqual([0, 1]);
  expect(stderr).toContain("the daemon works from memory (ENOSPC)");
  admin.stop();
});

test("what does not fit the command is a usage error", async () => {
  for (const args of [
    [],
    ["drop"],
    ["get"],
    ["get", "pods"],
    ["ls", "x"],
    ["ls", "-o", "raw"],
    ["verify", "-o", "json"],
  ])
    expect([args, (await holdfast("cache", ...args)).code]).toEqual([args, 2]);
});
