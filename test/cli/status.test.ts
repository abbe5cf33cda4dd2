import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "../../src/base/log.ts";
import { prose } from "../../src/cli/status.ts";
import { jsonText } from "../../src/cli/terminal.ts";
import { startAdmin } from "../../src/health/admin.ts";
import type { StatusReport } from "../../src/health/status-report.ts";
import { report, scope } from "../health/report.ts";
import { holdfast } from "./holdfast.ts";

const firstLine = (changes: Partial<StatusReport>) => prose(report(changes)).split("\n")[0];
const { nowMs } = report();
const offline = {
  state: "offline",
  sinceMs: nowMs - 11_520_000,
  servers: [{ url: "https://10.0.0.1:6443", lastContactMs: nowMs - 11_522_000, lastError: "ECONNREFUSED" }],
} as const satisfies StatusReport["link"];

test("the first line answers whether one can walk away", () => {
  expect(firstLine({})).toBe("ONLINE 3h12m · 2 scopes live · client certificate covers 214 days more");
  expect(
    firstLine({ link: { ...offline, servers: [] }, requests: { forwarded: 0, servedFromCache: 9, refusedWrites: 2 } }),
  ).toBe("OFFLINE 3h12m · serving 2 scopes from cache · client certificate covers 214 days more · 2 writes refused");
  expect(
    firstLine({ scopes: [scope()], certificates: [{ name: "upstream", subject: "CN=x", notAfterMs: nowMs - 1 }] }),
  ).toBe("ONLINE 3h12m · 1 scope live · client certificate EXPIRED");
  expect(firstLine({ certificates: [], conditions: [{ type: "StoreInMemory", reason: "ENOSPC", message: "m" }] })).toBe(
    "ONLINE 3h12m · 2 scopes live · 1 condition to look at",
  );
});

test("the tables name servers, scopes, clients, certificates, store and conditions", () => {
  const text = prose(
    report({
      link: offline,
      conditions: [
        {
          type: "StoreInMemory",
          reason: "ENOSPC",
          message: "The disk is full",
          sinceMs: nowMs - 60_000,
          next: "See: df -h",
        },
      ],
    }),
  );
  expect(text).toMatch(/^StoreInMemory \(ENOSPC, since 1m ago\): The disk is full\n  See: df -h$/m);
  expect(text).toMatch(/^https:\/\/10\.0\.0\.1:6443 .*3h12m ago +ECONNREFUSED$/m);
  expect(text).toMatch(/^nodes \(metadata\.name=gw-1\) +\(all\) +system:node:gw-1 +live +6 +24\.0 kB +1 +12s ago$/m);
  expect(text).toMatch(/^endpointslices\.discovery\.k8s\.io +\(all\) +token 01234567 +listing +0 +0 B +0 +never$/m);
  expect(text).toMatch(/^system:node:gw-1 +2 +2$/m);
  expect(text).toMatch(/^upstream +O=system:nodes, CN=system:node:gw-1 +in 214 days$/m);
  expect(text).toContain(
    "Store: /var/lib/holdfast/cache.db, 1.2 MB, 12 objects, 2 answers, 0 damaged, sealing key from file",
  );
});

test("a scope fed by another caller's watch says so, and the bytes saved are told", () => {
  const shared = scope({ resource: "services", labelSelector: "!a", sharesWatchOf: "token:0123456789abcdef" });
  const text = prose(report({ scopes: [scope(), shared], sharedBytes: 1_200_000 }));
  expect(text).toMatch(/^services \(!a\) .* live, shared /m);
  expect(text).toContain("Sharing: 1 scope fed by another caller's watch, 1.2 MB of lists and events");
  expect(prose(report())).not.toContain("Sharing");
});

async function daemon(changes: Partial<StatusReport> = {}) {
  const stateDir = mkdtempSync(join(tmpdir(), "holdfast-status-"));
  const path = join(stateDir, "admin.sock");
  const admin = await startAdmin({
    path,
    status: () => report(changes),
    coverage: () => Promise.resolve(undefined),
    rehearse: () => Promise.resolve("not here"),
    flush: () => {},
    objects: () => [],
    certificates: () => Promise.resolve({ status: 200, message: "" }),
    log: silentLog,
  });
  return { stateDir, path, [Symbol.dispose]: admin.stop };
}

test("status exits 0 online, 3 offline, 3 with a condition", async () => {
  using online = await daemon();
  using cut = await daemon({ link: offline });
  using odd = await daemon({ conditions: [{ type: "A", reason: "B", message: "C" }] });
  expect(await holdfast("status", "--state-dir", online.stateDir)).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^ONLINE 3h12m/),
    stderr: "",
  });
  expect(await holdfast("status", "--state-dir", cut.stateDir)).toMatchObject({
    code: 3,
    stdout: expect.stringMatching(/^OFFLINE 3h12m/),
  });
  expect(await holdfast("status", "--admin-socket", odd.path)).toMatchObject({ code: 3 });
});

test("status -o json prints the report whole, and what a newer daemon adds to it", async () => {
  using running = await daemon({ ...report(), tunnel: { state: "open" } } as Partial<StatusReport>);
  const { code, stdout } = await holdfast("status", "-o", "json", "--state-dir", running.stateDir);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({ ...report(), tunnel: { state: "open" } });
});

test("status finds the socket by the configuration", async () => {
  using running = await daemon();
  const config = join(running.stateDir, "config.yaml");
  writeFileSync(config, "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nstateDir: .\n");
  expect(await holdfast("status", "--config", config)).toMatchObject({ code: 0 });
  writeFileSync(config, "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nstateDri: .\n");
  expect(await holdfast("status", "--config", config)).toMatchObject({
    code: 1,
    stdout: "",
    stderr: expect.stringContaining('config.yaml:3: unknown field "stateDri"'),
  });
});

test("a selector of 100 kB costs a line of its own, not one of every row, and moves no cursor", () => {
  const long = scope({ labelSelector: `a in (${"x,".repeat(50_000)})` });
  const odd = scope({ resource: "pods\u001b[2J\u202e", namespace: "a\nb" });
  const text = prose(report({ scopes: [...Array.from({ length: 300 }, () => scope()), long, odd] }));
  expect(text.length).toBeLessThan(100_000);
  expect(text).toContain("…");
  for (const evil of ["\u001b", "\u202e", "a\nb"]) expect(text).not.toContain(evil);
  expect(jsonText(report({ scopes: [long] })).length).toBeLessThan(5_000);
  expect(JSON.parse(jsonText(report()))).toEqual(report());
});

test("status says that nothing runs, or that something strange does, and what to try", async () => {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-status-"));
  expect(await holdfast("status", "--state-dir", dir)).toEqual({
    code: 1,
    stdout: "",
    stderr: `holdfast status: no daemon answers on ${dir}/admin.sock\nTry: systemctl status holdfast, or give other flags than --state-dir ${dir}\n`,
  });
  using strange = await daemon({ kind: "Other" } as never);
  expect(await holdfast("status", "--state-dir", strange.stateDir)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("in a form that this version does not know (kind)"),
  });
  expect(await holdfast("status", "--nonsense")).toMatchObject({ code: 2 });
  expect(await holdfast("status", "-o", "yaml")).toMatchObject({ code: 2 });
});
