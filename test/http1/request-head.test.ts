import { describe, expect, test } from "bun:test";
import { HeadError, readRequestHead } from "../../src/http1/request-head.ts";

const HOST = "Host: localhost\r\n";

/** What became of a head: what was read, or the status it is refused with. */
function read(text: string) {
  try {
    return readRequestHead(text);
  } catch (error) {
    if (error instanceof HeadError) return error.status;
    throw error;
  }
}

describe("a head that is read", () => {
  test("keeps names, values and order as sent", () => {
    const head = readRequestHead(`GET /api?x=%2F HTTP/1.1\r\n${HOST}X-A:  one \t\r\nx-a: two\r\nEmpty:\r\n`);
    expect(head).toMatchObject({ method: "GET", target: "/api?x=%2F", minor: 1 });
    expect(head.block.headers).toEqual([
      ["Host", "localhost"],
      ["X-A", "one"],
      ["x-a", "two"],
      ["Empty", ""],
    ]);
    expect(head.block.byName.get("x-a")).toBe("one");
  });

  test.each([
    ["no length", "", { length: -1, isChunked: false }],
    ["a length", "Content-Length: 12\r\n", { length: 12, isChunked: false }],
    ["chunks", "Transfer-Encoding: Chunked\r\n", { length: -1, isChunked: true }],
    ["close", "Connection: close\r\n", { keepAlive: false }],
    ["keep-alive", "Connection: Keep-Alive\r\n", { keepAlive: true }],
    ["close among others", "Connection: X-Foo, close\r\n", { keepAlive: false }],
    ["an upgrade", "Connection: keep-alive, Upgrade\r\nUpgrade: SPDY/3.1\r\n", { isUpgrade: true }],
    ["Upgrade without the option", "Upgrade: websocket\r\n", { isUpgrade: false }],
    ["100-continue", "Expect: 100-Continue\r\n", { expectsContinue: true }],
  ])("with %s", (_, lines, expected) => {
    expect(readRequestHead(`POST / HTTP/1.1\r\n${HOST}${lines}`).block).toMatchObject(expected);
  });

  test("may lack a Host in HTTP/1.0", () => {
    expect(readRequestHead("GET / HTTP/1.0\r\n")).toMatchObject({ minor: 0 });
  });
});

describe("a head that is refused:", () => {
  test.each([
    ["no request line", "", 400],
    ["no target", "GET HTTP/1.1\r\nHost: a\r\n", 400],
    ["a space in the target", `GET /a b HTTP/1.1\r\n${HOST}`, 400],
    ["a tab between", `GET\t/a HTTP/1.1\r\n${HOST}`, 400],
    ["two spaces", `GET  /a HTTP/1.1\r\n${HOST}`, 400],
    ["no target between two spaces", "GET  HTTP/1.0\r\n", 400],
    ["a leading space", ` GET /a HTTP/1.1\r\n${HOST}`, 400],
    ["a control in the target", `GET /a\x01 HTTP/1.1\r\n${HOST}`, 400],
    ["a byte beyond ASCII in the target", `GET /\xe4 HTTP/1.1\r\n${HOST}`, 400],
    ["a method that is no token", `G(T / HTTP/1.1\r\n${HOST}`, 400],
    ["an endless method", `${"G".repeat(40)} / HTTP/1.1\r\n${HOST}`, 400],
    ["HTTP/2.0 said in HTTP/1's way", `GET /api HTTP/2.0\r\n${HOST}`, 505],
    ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n", 505],
    ["another protocol", `GET / RTSP/1.0\r\n${HOST}`, 400],
    ["lower-case http", `GET / http/1.1\r\n${HOST}`, 400],
    ["HTTP/0.9", "GET /\r\n", 400],
    ["no Host", "GET / HTTP/1.1\r\n", 400],
    ["two Hosts", `GET / HTTP/1.1\r\n${HOST}${HOST}`, 400],
    ["an empty Host", "GET / HTTP/1.1\r\nHost:\r\n", 400],
    ["a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n", 400],
    ["a Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n", 400],
    ["two names in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n", 400],
    ["a line without a colon", `GET / HTTP/1.1\r\n${HOST}Foo\r\n`, 400],
    ["a name that is empty", `GET / HTTP/1.1\r\n${HOST}: x\r\n`, 400],
    ["space before the colon", `GET / HTTP/1.1\r\n${HOST}Content-Length : 3\r\n`, 400],
    ["a folded line", `GET / HTTP/1.1\r\n${HOST}Foo: a\r\n b\r\n`, 400],
    ["a folded first line", `GET / HTTP/1.1\r\n Foo: a\r\n${HOST}`, 400],
    ["a bare CR in a value", `GET / HTTP/1.1\r\n${HOST}Foo: a\rb\r\n`, 400],
    ["a bare LF in a value", `GET / HTTP/1.1\r\n${HOST}Foo: a\nContent-Length: 3\r\n`, 400],
    ["NUL in a value", `GET / HTTP/1.1\r\n${HOST}Foo: a\0b\r\n`, 400],
    ["a bare LF after the request line", `GET / HTTP/1.1\nFoo: a\r\n${HOST}`, 400],
    ["a length with a sign", `POST / HTTP/1.1\r\n${HOST}Content-Length: +3\r\n`, 400],
    ["a length in hex", `POST / HTTP/1.1\r\n${HOST}Content-Length: 0x3\r\n`, 400],
    ["a length with a space", `POST / HTTP/1.1\r\n${HOST}Content-Length: 1 2\r\n`, 400],
    ["a length in a list", `POST / HTTP/1.1\r\n${HOST}Content-Length: 3, 3\r\n`, 400],
    ["an empty length", `POST / HTTP/1.1\r\n${HOST}Content-Length:\r\n`, 400],
    ["an endless length", `POST / HTTP/1.1\r\n${HOST}Content-Length: ${"9".repeat(20)}\r\n`, 400],
    ["the same length twice", `POST / HTTP/1.1\r\n${HOST}Content-Length: 3\r\nContent-Length: 3\r\n`, 400],
    ["length and chunks", `POST / HTTP/1.1\r\n${HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n`, 400],
    ["chunks and length", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n`, 400],
    ["gzip, chunked", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n`, 400],
    ["chunked twice", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n`, 400],
    ["identity", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n`, 400],
    ["chunked behind a control", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: \x0bchunked\r\n`, 400],
    ["chunked in quotes", `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: "chunked"\r\n`, 400],
    ["chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400],
    ["an expectation we cannot meet", `POST / HTTP/1.1\r\n${HOST}Expect: 200-ok\r\n`, 417],
    ["too many lines", `GET / HTTP/1.1\r\n${HOST}${"A: b\r\n".repeat(256)}`, 431],
  ])("%s", (_, text, status) => {
    expect(read(text)).toBe(status);
    // A remembered block must not be remembered as good.
    expect(read(text)).toBe(status);
  });
});
