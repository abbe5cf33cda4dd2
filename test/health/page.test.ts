import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { pageApp } from "../../src/health/page.ts";
import { pageOf, type PageFacts } from "../../src/health/page-view.ts";
import { Outages } from "../../src/node/outages.ts";
import { holdfast } from "../cli/holdfast.ts";
import { startEdge } from "../support/edge.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { ManualClock } from "../support/model.ts";
import { report } from "./report.ts";

const { nowMs } = report();
const HOUR_MS = 3_600_000;

function facts(changes: Partial<PageFacts> = {}): PageFacts {
  const pod = (name: string, comesBack: "yes" | "no") => ({
    namespace: "shop",
    name,
    uid: name,
    comesBack,
    missing:
      comesBack === "no"
        ? [{ kind: "image", name: "registry.example.com/team/web:1.27", why: "not on this machine" }]
        : [],
    unknown: [],
  });
  return {
    report: report({
      coverage: {
        apiVersion: "holdfast.dev/v1alpha1",
        kind: "Coverage",
        atMs: nowMs,
        node: [],
        imagesFrom: "/run/x",
        pods: [pod("web-6d4cf56db6-abcde", "yes"), pod("<b>evil</b>", "no")],
      },
      conditions: [
        { type: "StoreInMemory", reason: "ENOSPC", message: "The state folder cannot be written", next: "See: df -h" },
      ],
    }),
    light: "red",
    outages: [
      { fromMs: nowMs - 50 * HOUR_MS, toMs: nowMs - 47 * HOUR_MS },
      { fromMs: nowMs - 3 * HOUR_MS, toMs: nowMs - HOUR_MS },
    ],
    uplink: [
      { id: "network/dns", level: "ok", cause: "api.example.com is 10.0.0.1 (4 ms)", next: "" },
      { id: "network/tcp", level: "failed", cause: "refused", next: "See: ip route get 10.0.0.1" },
    ],
    disk: { device: "mmcblk0", usedPercent: 30 },
    ...changes,
  };
}

describe("the page's doors", () => {
  function setUp() {
    let atMs = 0;
    const app = pageApp({
      hosts: ["gw.lan"],
      facts: () => Promise.resolve(facts()),
      isPin: (pin) => pin === "12345678",
      nowMs: () => atMs,
    });
    const ask = (path: string, init: RequestInit & { readonly host?: string } = {}) =>
      app.request(`https://gw.lan${path}`, {
        ...init,
        headers: { Host: init.host ?? "gw.lan:10269", ...init.headers },
      });
    const send = (pin: string, origin = "https://gw.lan:10269") => {
      const body = `pin=${pin}`;
      return ask("/pin", {
        method: "POST",
        body,
        headers: {
          Origin: origin,
          "Content-Length": String(body.length),
          "Content-Type": "application/x-www-form-urlencoded",
        },
      });
    };
    return { ask, send, pass: (ms: number) => (atMs += ms) };
  }

  test("nothing is shown without a session, and the right PIN gives one that ends", async () => {
    const { ask, send, pass } = setUp();
    const door = await (await ask("/")).text();
    expect(door).toContain("holdfast page pin");
    expect(door).not.toContain("shop");
    const entered = await send("12345678");
    expect(entered.status).toBe(303);
    const set = entered.headers.get("set-cookie")!;
    for (const word of ["Secure", "HttpOnly", "SameSite=Strict", "__Host-"]) expect(set).toContain(word);
    const Cookie = set.split(";")[0]!;
    expect(await (await ask("/", { headers: { Cookie } })).text()).toContain("shop/web-6d4cf56db6-abcde");
    const forged = Cookie.replace(/[0-9a-f]{8}$/, "00000000");
    expect(await (await ask("/", { headers: { Cookie: forged } })).text()).not.toContain("shop");
    pass(8 * HOUR_MS + 1);
    expect(await (await ask("/", { headers: { Cookie } })).text()).not.toContain("shop");
  });

  test("a wrong PIN is told so five times a minute, and then even the right one waits", async () => {
    const { send, pass } = setUp();
    for (let at = 0; at < 5; at++) expect((await send("00000000")).status).toBe(403);
    expect((await send("12345678")).status).toBe(429);
    pass(60_001);
    expect((await send("12345678")).status).toBe(303);
  });

  test("another name, another site's form, another verb and another path are refused", async () => {
    const { ask, send } = setUp();
    expect((await ask("/", { host: "evil.example" })).status).toBe(421);
    expect((await send("12345678", "https://evil.example")).status).toBe(403);
    expect((await ask("/pin", { method: "POST", body: "pin=12345678" })).status).toBe(403);
    expect((await ask("/", { method: "DELETE", headers: { Origin: "https://gw.lan:10269" } })).status).toBe(404);
    expect((await ask("/admin")).status).toBe(404);
  });

  test("no script and nothing from elsewhere may run in it, and names cannot write HTML", async () => {
    const { ask } = setUp();
    const policy = (await ask("/")).headers.get("content-security-policy")!;
    expect(policy).toStartWith("default-src 'none'; style-src 'sha256-");
    const html = pageOf(facts());
    expect(html).toContain("&lt;b&gt;evil&lt;/b&gt;");
    expect(html).not.toMatch(/<script|<b>|\son\w+=|https?:\/\//);
  });
});

test("outages are remembered over a restart, short ones are not, and one that lasts is told", async () => {
  const store = new MemoryStore();
  const clock = new ManualClock();
  const outages = new Outages(store, clock);
  for (const ms of [60_000, 1_000, 90_000]) {
    outages.changed(false);
    await clock.pass(ms);
    outages.changed(true);
    await clock.pass(10_000);
  }
  outages.changed(false);
  await clock.pass(7_000);
  const lengths = (of: Outages) => of.all().map(({ fromMs, toMs }) => toMs - fromMs);
  expect(lengths(outages)).toEqual([60_000, 90_000, 7_000]);
  expect(lengths(new Outages(store, clock))).toEqual([60_000, 90_000]);
});

test("a daemon serves it where it is configured, for the PIN that the CLI makes, until another is made", async () => {
  await using apiServer = await startApiServer({
    objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } }],
  });
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  await using edge = await startEdge({ apiServer, node: "edge1", config: `page: {listen: "127.0.0.1:${port}"}\n` });
  const url = `https://127.0.0.1:${port}`;
  const tls = { ca: edge.client.options.ca };
  const enter = (pin: string) =>
    fetch(`${url}/pin`, {
      method: "POST",
      body: `pin=${pin}`,
      redirect: "manual",
      tls,
      headers: { Origin: url },
    } as RequestInit);
  expect((await enter("")).status).toBe(403);
  const made = async () => {
    const { stdout, stderr } = await holdfast("page", "pin", "--state-dir", edge.stateDir);
    expect(stderr).toBe(`# for ${url}/\n`);
    return stdout.trim();
  };
  const first = await made();
  expect(first).toMatch(/^\d{8}$/);
  const entered = await enter(first);
  expect(entered.status).toBe(303);
  const Cookie = entered.headers.get("set-cookie")!.split(";")[0]!;
  const html = await (await fetch(url, { tls, headers: { Cookie } } as RequestInit)).text();
  for (const words of ["ONLINE for", "node edge1 is known", "local-ca", "no pod comes back"])
    expect(html).toContain(words);
  await made();
  expect((await enter(first)).status).toBe(403);
  await using without = await startEdge({ apiServer });
  expect((await holdfast("page", "pin", "--state-dir", without.stateDir)).stderr).toContain("the page is off");
}, 30_000);

const chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => existsSync(path));
describe.skipIf(chromium === undefined)(
  `in a browser${chromium === undefined ? " (there is no Chromium here)" : ""}`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), "holdfast-page-"));
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    test.each([320, 1280])(
      "at %d pixels nothing is cut off, and the light is seen first",
      async (width) => {
        const { chromium: driver } = await import("playwright-core");
        const app = pageApp({
          hosts: ["127.0.0.1"],
          facts: () => Promise.resolve(facts()),
          isPin: () => true,
          nowMs: () => 0,
        });
        await using server = Bun.serve({
          port: 0,
          hostname: "127.0.0.1",
          // A session's cookie wants TLS; the browser is shown the page as behind it.
          fetch: async (request) =>
            new URL(request.url).pathname === "/"
              ? new Response(pageOf(facts()), {
                  headers: {
                    "Content-Type": "text/html",
                    ...Object.fromEntries(
                      (await app.request("https://127.0.0.1/", { headers: { Host: "127.0.0.1" } })).headers,
                    ),
                  },
                })
              : new Response("", { status: 404 }),
        });
        const browser = await driver.launch({
          executablePath: chromium!,
          args: [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
          ],
        });
        try {
          const page = await browser.newPage({ viewport: { width, height: 900 } });
          const asked: string[] = [];
          page.on("request", (request) => asked.push(new URL(request.url()).host));
          await page.goto(server.url.href);
          const { wide, light, dotColour } = (await page.evaluate(`(() => ({
        wide: document.documentElement.scrollWidth,
        light: document.querySelector(".light").getBoundingClientRect().top,
        dotColour: getComputedStyle(document.querySelector(".light")).backgroundColor,
      }))()`)) as { wide: number; light: number; dotColour: string };
          expect(wide).toBeLessThanOrEqual(width);
          expect(light).toBeLessThan(100);
          // The policy lets our own style in.
          expect(dotColour).toBe("rgb(180, 35, 24)");
          expect(new Set(asked)).toEqual(new Set([server.url.host]));
          const shots = process.env["HOLDFAST_SCREENSHOTS"] ?? folder;
          const path = join(shots, `page-${width}.png`);
          await page.screenshot({ path, fullPage: true });
          expect(existsSync(path)).toBe(true);
        } finally {
          await browser.close();
        }
      },
      60_000,
    );
  },
);
