import { expect, test } from "bun:test";
import type { Exchange } from "../../src/proxy/exchange.ts";
import { Forwarder } from "../../src/proxy/forward.ts";
import type { Caller } from "../../src/proxy/identify.ts";
import type { Link } from "../../src/proxy/link.ts";
import type { Upstream, UpstreamRequest } from "../../src/proxy/upstream.ts";
import { ModelLink } from "../support/model.ts";

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
    request: { headers: {} },
    response: {
      writeHead: () => head.resolve(),
      destroy: () => brokenOff.resolve("broken off"),
      end: () => brokenOff.resolve("ended"),
    },
    signal: new AbortController().signal,
  };
  const forwarder = new Forwarder(upstream as unknown as Upstream, link as unknown as Link, () => {}, {
    isRefused: () => false,
    refused() {},
  });
  const tap = { head: () => true, chunk() {}, end() {}, abort() {} };
  const forwarding = forwarder.forward(exchange as unknown as Exchange, { credential: {} } as Caller, { tap });
  await head.promise;
  link.turn(false);
  expect(await brokenOff.promise).toBe("broken off");
  await forwarding;
});
