import { describe, expect, test } from "bun:test";
import { systemClock } from "../../src/base/clock.ts";
import { UnreachableError } from "../../src/uplink/scope-source.ts";
import type { Exchange } from "../../src/front/exchange.ts";
import { Forwarder } from "../../src/front/forward.ts";
import type { Caller } from "../../src/callers/identify.ts";
import type { Link } from "../../src/uplink/link.ts";
import type { Upstream, UpstreamRequest } from "../../src/uplink/upstream.ts";
import { ModelLink } from "../support/model.ts";

const well = { isSilent: false, suspect: async () => false };

test("a short answer whose body does not follow its head is broken off when the link is found dead", async () => {
  const link = new ModelLink();
  const upstream = {
    request: async ({ signal }: UpstreamRequest) => {
      const body = new ReadableStream({
        start: (controller) => signal.addEventListener("abort", () => controller.error(signal.reason)),
      });
      return new Response(body, { headers: { "content-type": "application/json", "content-length": "100" } });
    },
  };
  const head = Promise.withResolvers<void>();
  const brokenOff = Promise.withResolvers<string>();
  const exchange = {
    method: "GET",
    target: "/api/v1/namespaces/shop/configmaps/a",
    headers: [],
    header: () => undefined,
    bodyLength: 0,
    response: {
      writeHead: () => head.resolve(),
      destroy: () => brokenOff.resolve("broken off"),
      end: () => brokenOff.resolve("ended"),
    },
    signal: new AbortController().signal,
  };
  const forwarder = new Forwarder(
    upstream as unknown as Upstream,
    link as unknown as Link,
    () => {},
    {
      isRefused: () => false,
      refused() {},
    },
    well,
    systemClock,
  );
  const tap = { takesWhole: false, head: () => true, chunk() {}, end() {}, abort() {} };
  const forwarding = forwarder.forward(exchange as unknown as Exchange, { credential: {} } as Caller, { tap });
  await head.promise;
  link.turn(false);
  expect(await brokenOff.promise).toBe("broken off");
  await forwarding;
});

describe("a write whose connection breaks", () => {
  /** @returns what became of it: "laid over" its copy, or the code of the Status. */
  async function write(standsAfterFailure: () => Promise<boolean>): Promise<string | number> {
    let became: string | undefined;
    const link = Object.assign(new ModelLink(), { standsAfterFailure });
    const upstream = { request: () => Promise.reject(new UnreachableError("reset")) };
    const exchange = {
      method: "PATCH",
      target: "/api/v1/namespaces/shop/pods/web-0/status",
      headers: [],
      header: () => undefined,
      bodyLength: 0,
      signal: new AbortController().signal,
    };
    const forwarder = new Forwarder(
      upstream as unknown as Upstream,
      link as unknown as Link,
      () => {},
      {
        isRefused: () => false,
        refused() {},
      },
      well,
      systemClock,
    );
    const fallback = {
      givesWay: "storage" as const,
      find: () => () => {
        became = "laid over";
      },
    };
    try {
      const sent = { body: new Uint8Array() };
      await forwarder.forward(
        exchange as unknown as Exchange,
        { credential: {} } as Caller,
        { fallback, sent } as never,
      );
      return became ?? "forwarded";
    } catch (error) {
      return (error as { status?: { code?: number } }).status?.code ?? String(error);
    }
  }

  test("is 503 where the link stands: no return would ever take an overlay off", async () => {
    expect(await write(async () => true)).toBe(503);
  });

  test("is laid over the copy where the link is lost with it", async () => {
    expect(await write(async () => false)).toBe("laid over");
  });
});
