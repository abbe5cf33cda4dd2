import { expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { decodeBody } from "../../src/front/serve.ts";

test("an answer that was compressed is kept as it reads, unless it unfolds beyond all bounds or is none", () => {
  const members = Buffer.concat([gzipSync("one "), gzipSync("two")]);
  expect(Buffer.from(decodeBody(members, "gzip")!).toString()).toBe("one two");
  const bomb = gzipSync(Buffer.alloc(64 * 2 ** 20));
  expect(decodeBody(bomb, "gzip")).toBeUndefined();
  expect(decodeBody(Buffer.from("no gzip"), "gzip")).toBeUndefined();
  expect(decodeBody(members, "br")).toBeUndefined();
  expect(decodeBody(members, null)).toBe(members);
});
