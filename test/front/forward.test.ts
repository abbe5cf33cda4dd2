import { describe, expect, test } from "bun:test";
import { systemClock } from "../../src/base/clock.ts";
import { UnreachableError } from "../../src/uplink/scope-source.ts";
import type { Exchange } from "../../src/front/exchange.ts";
import { Forwarder } from "../../src/front/forward.ts";
import type { Caller } from "../../src/callers/identify.ts";
import type { Link } from "../../src/uplink/link.ts";
import type { Upstream, UpstreamRequest } from "../../src/uplink/upstream.ts";
import { ModelLink } from "../support/model.ts";

/** Over a link and an API server of a few lines, whose storage is well. */
function forwarderOver(link: ModelLink, request: (asked: UpstreamRequest) => Promise<Response>): Forwarder {
  const access = { isRefused: () => false, refused() {} };
  const storage = { isSilent: false, suspect: async () => false };
  const upstream = { request } as unknown as Upstream;
  return new Forwarder(upstream, link as unknown as Link, () => {}, access, storage, systemClock);
}

/** A request without headers or body; what it is answered goes to `response`. */
function exchangeOf(method: string, target: string, response: object = {}): Exchange {
  const { signal } = new AbortController();
  const exchange = { method, target, headers: [], header: () => undefined, bodyLength: 0, response, signal };
  return exchange as unknown as Exchange;
}

test.each([
  ["that is learned from", true],
  ["of which nothing is learned: a refusal", false],
])(
  "a short answer %s, whose body does not follow its head, is broken off when the link is found dead",
  async (_title, isLearned) => {
    const link = new ModelLink();
    const request = async ({ signal }: UpstreamRequest) => {
      const body = new ReadableStream({
        start: (controller) => signal.addEventListener("abort", () => controller.error(signal.reason)),
      });
      return new Response(body, { headers: { "content-type": "application/json", "content-length": "100" } });
    };
    const head = Promise.withResolvers<void>();
    const brokenOff = Promise.withResolvers<string>();
    const exchange = exchangeOf("GET", "/api/v1/namespaces/shop/configmaps/a", {
      writeHead: () => head.resolve(),
      destroy: () => brokenOff.resolve("broken off"),
      end: () => brokenOff.resolve("ended"),
    });
    const tap = { takesWhole: false, head: () => isLearned, chunk() {}, end() {}, abort() {} };
    const forwarding = forwarderOver(link, request).forward(exchange, { credential: {} } as Caller, { tap });
    await head.promise;
    link.turn(false);
    expect(await brokenOff.promise).toBe("broken off");
    await forwarding;
  },
);

describe("a write whose connection breaks", () => {
  /** @returns what became of it: "laid over" its copy, or the code of the Status. */
  async function write(standsAfterFailure: () => Promise<boolean>): Promise<string | number> {
    let became: string | undefined;
    const link = Object.assign(new ModelLink(), { standsAfterFailure });
    const exchange = exchangeOf("PATCH", "/api/v1/namespaces/shop/pods/web-0/status");
    const forwarder = forwarderOver(link, () => Promise.reject(new UnreachableError("reset")));
    const fallback = {
      givesWay: "storage" as const,
      find: () => () => {
        became = "laid over";
      },
    };
    try {
      const sent = { body: new Uint8Array() };
      await forwarder.forward(exchange, { credential: {} } as Caller, { fallback, sent });
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
