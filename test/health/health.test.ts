import { expect, test } from "bun:test";
import { Metrics } from "../../src/base/metrics.ts";
import { HealthListenError, startHealth, type HealthCheck, type HealthOptions } from "../../src/health/health.ts";

function serve(checks: readonly HealthCheck[] = [], more: Partial<HealthOptions> = {}) {
  const metrics = new Metrics();
  metrics.counter("holdfast_c_total", "C.");
  const server = startHealth({
    listen: { host: "127.0.0.1", port: 0 },
    checks,
    metrics,
    beforeScrape: () => {},
    ...more,
  });
  return {
    ...server,
    get: (path: string, method = "GET") => fetch(`http://127.0.0.1:${server.port}${path}`, { method }),
    [Symbol.dispose]: server.stop,
  };
}

test("readyz is 503 and names what is missing until each latch is released", async () => {
  let reason: string | undefined = "still reading the store";
  using health = serve([
    { name: "listening", check: () => undefined },
    { name: "store", check: () => reason },
  ]);
  const before = await health.get("/readyz");
  expect(before.status).toBe(503);
  expect(await before.text()).toBe("[+]listening ok\n[-]store failed: still reading the store\nreadyz check failed\n");
  expect((await health.get("/livez")).status).toBe(200);
  reason = undefined;
  const after = await health.get("/readyz");
  expect([after.status, await after.text()]).toEqual([200, "ok"]);
  expect(await (await health.get("/readyz?verbose")).text()).toBe(
    "[+]listening ok\n[+]store ok\nreadyz check passed\n",
  );
});

test("a check that throws has failed and hides no other", async () => {
  using health = serve([
    {
      name: "broken",
      check: () => {
        throw new TypeError("s3cr3t");
      },
    },
    { name: "fine", check: () => undefined },
  ]);
  const reply = await health.get("/readyz");
  const text = await reply.text();
  expect(reply.status).toBe(503);
  expect(text).toContain("[-]broken failed: the check itself failed: TypeError\n[+]fine ok");
  expect(text).not.toContain("s3cr3t");
});

test("metrics are brought up to date and typed as Prometheus expects", async () => {
  let scrapes = 0;
  using health = serve([], { beforeScrape: () => void scrapes++ });
  const reply = await health.get("/metrics");
  expect(reply.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  expect(await reply.text()).toContain("# TYPE holdfast_c_total counter\nholdfast_c_total 0\n");
  expect(scrapes).toBe(1);
});

test("scrapes that take long are made a fifth of the time at most, however often they are asked for", async () => {
  let scrapes = 0;
  const slow = () => {
    scrapes++;
    Bun.sleepSync(40);
  };
  using health = serve([], { beforeScrape: slow });
  const sinceMs = performance.now();
  for (let n = 0; n < 40; n++) await (await health.get("/metrics")).text();
  expect(scrapes).toBeLessThanOrEqual(1 + Math.ceil((performance.now() - sinceMs) / 200));
});

test("a scrape that fails is a 500 without its message", async () => {
  using health = serve([], {
    beforeScrape: () => {
      throw new Error("s3cr3t");
    },
  });
  const reply = await health.get("/metrics");
  expect([reply.status, await reply.text()]).toEqual([500, "internal error: Error\n"]);
});

test("only GET and HEAD are answered, and only known paths", async () => {
  using health = serve();
  for (const path of ["/livez", "/readyz", "/metrics"]) {
    const head = await health.get(path, "HEAD");
    expect([head.status, await head.text()]).toEqual([200, ""]);
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      const reply = await health.get(path, method);
      expect([method, reply.status, reply.headers.get("allow")]).toEqual([method, 405, "GET, HEAD"]);
    }
  }
  for (const path of ["/", "/debug/pprof", "/v1/status", "/readyz/"]) expect((await health.get(path)).status).toBe(404);
});

test("a port that is taken is an error that names address, field and flag", () => {
  using first = serve();
  let error: unknown;
  try {
    serve([], { listen: { host: "127.0.0.1", port: first.port } });
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(HealthListenError);
  expect(error).toMatchObject({
    code: "LISTEN_TAKEN",
    message: `Cannot listen on "127.0.0.1:${first.port}" for health: another program has the port; choose another address with healthListen in the configuration or --health-listen`,
  });
});

test("an address that no interface has is an error of its own", () => {
  expect(() => serve([], { listen: { host: "169.254.99.98", port: 0 } })).toThrow(
    "no interface of this machine has the address",
  );
});

test("the signal ends it", async () => {
  const stop = new AbortController();
  using health = serve([], { signal: stop.signal });
  expect((await health.get("/livez")).status).toBe(200);
  stop.abort();
  expect(health.get("/livez")).rejects.toThrow();
});
