import { describe, expect, test } from "bun:test";
import { PassThrough } from "node:stream";
import { readUpgradeAnswer } from "../../src/uplink/upgrade-answer.ts";

/** An answer, in one piece and byte by byte: where it is cut must not matter. */
async function read(text: string, { ends = false, step = text.length } = {}) {
  const socket = new PassThrough();
  const answer = readUpgradeAnswer(socket, new AbortController().signal);
  for (let at = 0; at < text.length; at += step) socket.write(text.slice(at, at + step));
  if (ends) socket.end();
  const found = await answer;
  return {
    status: found.isJoined ? 101 : found.status,
    text: Buffer.from(found.isJoined ? found.early : found.body).toString("latin1"),
  };
}

const rows: [string, string, boolean, number, string][] = [
  ["101 with the first bytes behind it", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nab", false, 101, "ab"],
  ["a Status of a length", "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\n{a}GET /", false, 403, "{a}"],
  [
    "a Status in chunks",
    "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{a\r\n1\r\n}\r\n0\r\n\r\nx",
    false,
    401,
    "{a}",
  ],
  ["a page up to the connection's end", "HTTP/1.1 200 OK\r\n\r\n<html>", true, 200, "<html>"],
  ["a body that breaks off", "HTTP/1.1 500 X\r\nContent-Length: 99\r\n\r\nhalf", true, 500, "half"],
  ["an empty one", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, 404, ""],
];

describe("an API server's answer to an upgrade", () => {
  test.each(rows)("%s", async (_, text, ends, status, body) => {
    expect(await read(text, { ends })).toEqual({ status, text: body });
    const slow = await read(text, { ends, step: 1 });
    expect(slow).toEqual({ status, text: body });
  });

  test.each([
    ["HTTP/2", "HTTP/2 101\r\n\r\n"],
    ["HTTP/1.0", "HTTP/1.0 101 Switching\r\n\r\n"],
    ["no HTTP", "SSH-2.0-OpenSSH\r\n\r\n"],
    ["1011", "HTTP/1.1 1011 X\r\n\r\n"],
    ["a head without end", `HTTP/1.1 101 X\r\nA: ${"x".repeat(70_000)}`],
  ])("%s is none", async (_, text) => {
    await expect(read(text)).rejects.toBeInstanceOf(RangeError);
  });

  test("a body without end is kept up to its bound", async () => {
    const { text } = await read(`HTTP/1.1 200 OK\r\n\r\n${"x".repeat(300_000)}`);
    expect(text).toHaveLength(65_536);
  });

  test("a connection that ends, or a reader that gives up, before the head is an error", async () => {
    await expect(read("HTTP/1.1 101 X\r\n", { ends: true })).rejects.toThrow("closed before an answer");
    const given = new AbortController();
    const answer = readUpgradeAnswer(new PassThrough(), given.signal);
    given.abort(new Error("no patience"));
    await expect(answer).rejects.toThrow("no patience");
  });
});
