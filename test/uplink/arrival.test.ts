/**
 * Whether a write that has no answer may have been carried out.
 */

import { expect, test } from "bun:test";
import { mayHaveArrived, sentInVain } from "../../src/uplink/arrival.ts";
import { Http2Failure } from "../../src/uplink/http2-failure.ts";
import { ForeignAnswerError, UnreachableError } from "../../src/uplink/scope-source.ts";

const unreached = (cause: unknown) => new UnreachableError("no answer", { cause });

test.each<[string, unknown, boolean]>([
  ["a port where nobody listens", unreached(Object.assign(new Error("refused"), { code: "ECONNREFUSED" })), false],
  ["a connection that broke with the request on it", unreached(sentInVain(new Error("reset"))), true],
  ["the same over HTTP/2", unreached(new Http2Failure("connection", "reset")), true],
  ["a stream that the API server ended", unreached(new Http2Failure("stream", "ended")), true],
  ["one that it says it did not begin with", unreached(new Http2Failure("not-processed", "refused")), false],
  ["something else's answer", new ForeignAnswerError("a login page", { cause: sentInVain(new Error("x")) }), false],
  ["an error that takes no mark", unreached(sentInVain(Object.freeze(new Error("frozen")))), false],
  ["nothing", undefined, false],
])("%s", (_, error, expected) => {
  expect(mayHaveArrived(error)).toBe(expected);
});
