import { describe, expect, test } from "bun:test";
import { readResponseHead, ResponseHeadError } from "../../src/http1/response-head.ts";

const head = (...lines: string[]) => readResponseHead(`${lines.join("\r\n")}\r\n`, false);
const OK = "HTTP/1.1 200 OK";
const DATE = "Date: Mon, 30 Nov 2026 03:00:00 GMT";

describe("an answer may be passed on as it came", () => {
  const cases: readonly (readonly [what: string, isPlain: boolean, lines: string[]])[] = [
    ["dated, with its length", true, [OK, DATE, "Content-Length: 2", "Audit-Id: 1"]],
    ["without a date", false, [OK, "Content-Length: 2"]],
    ["in chunks", false, [OK, DATE, "Transfer-Encoding: chunked"]],
    ["until the connection ends", false, [OK, DATE]],
    ["that speaks of its connection", false, [OK, DATE, "Content-Length: 2", "connection: keep-alive"]],
    ["with another hop's line", false, [OK, DATE, "Content-Length: 2", "Keep-Alive: timeout=5"]],
    ["of HTTP/1.0", false, ["HTTP/1.0 200 OK", DATE, "Content-Length: 2"]],
    ["that has no body", false, ["HTTP/1.1 304 Not Modified", DATE, "Content-Length: 2"]],
  ];
  test.each(cases)("%s: %p", (_, isPlain, lines) => expect(head(...lines).isPlain).toBe(isPlain));
});

describe("a line's end alone is somebody's line end, and refused", () => {
  test.each([
    ["a bare LF in a value", "A: b\nInjected: c"],
    ["a bare CR in a value", "A: b\rInjected: c"],
    ["a bare LF in a name", "A\nInjected: c"],
  ])("%s", (_, line) => expect(() => head(OK, DATE, line, "Content-Length: 2")).toThrow(ResponseHeadError));
});

test("names are given in both forms, in their order", () => {
  const { fields, names } = head(OK, DATE, "X-A: 1", "x-a: 2", "Content-Length: 0");
  expect(fields.map(([name]) => name)).toEqual(["Date", "X-A", "x-a", "Content-Length"]);
  expect(names).toEqual(["date", "x-a", "x-a", "content-length"]);
});
