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
    renewPin: () => ({ pin: "" }),
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

test("status -o json prints the report whole with ISO times beside its moments, and what a newer daemon adds to it", async () => {
  using running = await daemon({ ...report(), weather: { state: "open" } } as Partial<StatusReport>);
  const { code, stdout } = await holdfast("status", "-o", "json", "--state-dir", running.stateDir);
  expect(code).toBe(0);
  const printed = JSON.parse(stdout);
  expect(printed).toMatchObject({ ...report(), weather: { state: "open" } });
  expect(printed.now).toBe(new Date(nowMs).toISOString());
  expect(printed.link.servers[0].lastContact).toBe(new Date(nowMs - 2_000).toISOString());
  // Never is no moment.
  expect(printed.scopes[2]).not.toHaveProperty("lastContact");
});

test("the schema that status prints holds for what it prints, and for nothing that lacks a field", async () => {
  const { stdout, code } = await holdfast("status", "--schema");
  expect(code).toBe(0);
  const schema = JSON.parse(stdout);
  using running = await daemon();
  const printed = JSON.parse((await holdfast("status", "-o", "json", "--state-dir", running.stateDir)).stdout);
  expect(misfits(schema, printed)).toEqual([]);
  const { link: _, ...less } = printed;
  expect(misfits(schema, less)).toEqual(["$.link is missing"]);
  expect(misfits(schema, { ...printed, version: 1 })).toEqual(["$.version is no string"]);
  expect(misfits(schema, { ...printed, link: { ...printed.link, state: "well" } })).toEqual([
    "$.link.state is none of its words",
  ]);
  expect(schema.properties.link.properties.since).toEqual({ type: "string", format: "date-time" });
});

/** Where a document does not fit a schema, by as much of JSON Schema as ours are made of. */
function misfits(schema: any, value: any, at = "$"): string[] {
  if (schema.const !== undefined) return value === schema.const ? [] : [`${at} is not ${schema.const}`];
  if (schema.enum !== undefined) return schema.enum.includes(value) ? [] : [`${at} is none of its words`];
  if (schema.type === "array")
    return value.flatMap((one: unknown, index: number) => misfits(schema.items, one, `${at}[${index}]`));
  if (schema.type !== "object") return typeof value === schema.type ? [] : [`${at} is no ${schema.type}`];
  return [
    ...schema.required
      .filter((name: string) => !Object.hasOwn(value, name))
      .map((name: string) => `${at}.${name} is missing`),
    ...Object.entries(value).flatMap(([name, held]) =>
      schema.properties[name] === undefined ? [] : misfits(schema.properties[name], held, `${at}.${name}`),
    ),
  ];
}

test("in a terminal no line is wider than it, and nothing is lost but by a mark", () => {
  const coverage = {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "Coverage",
    atMs: 0,
    node: [],
    imagesFrom: "",
    pods: [
      {
        namespace: "monitoring",
        name: "a-very-long-name-of-a-pod-that-somebody-gave-it-0123456789",
        uid: "u",
        comesBack: "no",
        missing: [{ kind: "image", name: `registry.example.com/${"x".repeat(120)}:1`, why: "not on this machine" }],
        unknown: [],
      },
    ],
  } as const satisfies StatusReport["coverage"] & object;
  const conditions = [{ type: "T", reason: "R", message: "word ".repeat(60), next: "See: something" }];
  for (const width of [60, 80, 100]) {
    const lines = prose(report({ coverage: coverage as never, conditions }), width).split("\n");
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(width);
    expect(lines.join(" ").split("word").length).toBe(61);
  }
});

test("--watch on a pipe tells the first line again and again, and ends when nobody reads", async () => {
  using running = await daemon();
  const main = join(import.meta.dir, "..", "..", "src", "main.ts");
  const child = Bun.spawn([process.execPath, main, "status", "--watch", "--state-dir", running.stateDir], {
    stdout: "pipe",
  });
  let text = "";
  for await (const part of child.stdout) {
    text += Buffer.from(part).toString();
    if (text.split("\n").length > 2) break;
  }
  expect(
    text
      .split("\n")
      .slice(0, 2)
      .every((line) => line.startsWith("ONLINE 3h12m")),
  ).toBe(true);
  child.kill("SIGINT");
  await child.exited;
}, 10_000);

test.skipIf(Bun.which("script") === null)(
  "--watch on a terminal clears it each time, and keeps to its width",
  async () => {
    using running = await daemon();
    const main = join(import.meta.dir, "..", "..", "src", "main.ts");
    const line = `stty cols 90 rows 40; exec ${process.execPath} ${main} status --watch --state-dir ${running.stateDir}`;
    const child = Bun.spawn(["script", "-qfec", line, "/dev/null"], { stdout: "pipe", stdin: "pipe" });
    let text = "";
    for await (const part of child.stdout) {
      text += Buffer.from(part).toString();
      if (text.split("\u001b[H").length > 2) break;
    }
    const [, first = ""] = text.split("\u001b[H\u001b[2J\u001b[3J");
    expect(first).toStartWith("ONLINE 3h12m");
    expect(Math.max(...first.split("\r\n").map(({ length }) => length))).toBeLessThanOrEqual(90);
    child.kill("SIGKILL");
    await child.exited;
  },
  10_000,
);

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
