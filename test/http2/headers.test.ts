import { describe, expect, test } from "bun:test";
import { HeaderDecoder } from "../../src/http2/header-decoder.ts";
import { HeaderEncoder } from "../../src/http2/header-encoder.ts";
import { MAX_TABLE_BYTES, STATIC_FIELDS, type HeaderField } from "../../src/http2/header-table.ts";
import { HpackError } from "../../src/http2/hpack-error.ts";
import { huffmanDecoded, huffmanLength, huffmanWrite } from "../../src/http2/huffman.ts";
import { MAX_WINDOW } from "../../src/http2/frames.ts";

const MOST = 65_536;
const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ""), "hex");
const get = (path: string, extra: HeaderField[] = []): HeaderField[] => [
  [":method", "GET"],
  [":scheme", "http"],
  [":path", path],
  [":authority", "www.example.com"],
  ...extra,
];

describe("the examples of RFC 7541, appendix C", () => {
  const requests = [get("/"), get("/", [["cache-control", "no-cache"]])];
  test.each([
    {
      name: "C.3, requests in plain text",
      blocks: ["8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", "8286 84be 5808 6e6f 2d63 6163 6865"],
      bytes: 110,
    },
    {
      name: "C.4, requests in Huffman code",
      blocks: ["8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", "8286 84be 5886 a8eb 1064 9cbf"],
      bytes: 110,
    },
  ])("$name", ({ blocks, bytes }) => {
    const decoder = new HeaderDecoder();
    expect(blocks.map((block) => decoder.read(hex(block), MOST))).toEqual(requests as never);
    expect(decoder.tableBytes).toBe(bytes);
  });

  test("C.6, answers in Huffman code; a table of 256 bytes lets the oldest go", () => {
    const decoder = new HeaderDecoder();
    const size = hex("3fe101");
    const first =
      "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    expect(decoder.read(Buffer.concat([size, hex(first)]), MOST)).toEqual([
      [":status", "302"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
      ["location", "https://www.example.com"],
    ]);
    expect(decoder.tableBytes).toBe(222);
    expect(decoder.read(hex("4883 640e ffc1 c0bf"), MOST)[0]).toEqual([":status", "307"]);
    expect(decoder.tableBytes).toBe(222);
  });
});

describe("the Huffman code", () => {
  test("gives back every byte", () => {
    const text = Buffer.from(Array.from({ length: 256 }, (_, i) => i)).toString("latin1");
    const bytes = Buffer.alloc(huffmanLength(text));
    expect(huffmanWrite(text, bytes, 0)).toBe(bytes.length);
    expect(huffmanDecoded(bytes, 0, bytes.length)).toBe(text);
  });

  test.each([
    ["padding of eight bits", "ff"],
    ["padding of noughts", "18"],
    ["the end of the string in it", "3fffffff"],
    ["nothing but padding, too long", "ffff"],
  ])("is refused with %s", (_, text) => {
    const bytes = hex(text);
    expect(() => huffmanDecoded(bytes, 0, bytes.length)).toThrow(HpackError);
  });
});

describe("a block is refused", () => {
  test.each([
    ["with an index of nothing", "80"],
    ["with an index behind the tables", "be"],
    ["with a name's index behind the tables", "7f00 00"],
    ["that ends within a number", "ff"],
    ["that ends within a string", "4005 6161"],
    ["with a number that has no end", "ffff ffff ffff ffff 7f"],
    ["with a table larger than allowed", "3fe2 1f"],
    ["with a table's size behind a field", "8220"],
  ])("%s", (_, block) => {
    expect(() => new HeaderDecoder().read(hex(block), MOST)).toThrow(HpackError);
  });

  test("that unfolds beyond its bound, before it has unfolded", () => {
    const decoder = new HeaderDecoder();
    const large = Buffer.concat([hex("4001 61 7f81 1c"), Buffer.alloc(0x7f + 0x0e01, 0x62)]);
    decoder.read(large, MOST);
    expect(() => decoder.read(Buffer.alloc(60_000, 0xbe), MOST)).toThrow(HpackError);
  });
});

describe("what is written", () => {
  /** As many heads of clients, one after another, and what they take. */
  function sent(heads: readonly HeaderField[][]) {
    const encoder = new HeaderEncoder();
    const decoder = new HeaderDecoder();
    return heads.map((fields) => {
      const block = encoder.write(fields);
      expect(decoder.read(block, MOST)).toEqual(fields);
      expect(decoder.tableBytes).toBe(encoder.tableBytes);
      expect(encoder.tableBytes).toBeLessThanOrEqual(MAX_TABLE_BYTES);
      return block;
    });
  }

  test("is read again, and costs little the second time", () => {
    const head: HeaderField[] = get("/api/v1/pods?watch=true", [
      ["accept", "application/json;q=0.9, application/vnd.kubernetes.protobuf"],
      ["user-agent", "kubelet/v1.37.2 (linux/amd64) kubernetes/abcdef0"],
    ]);
    const [first, second] = sent([head, head]);
    expect(first!.length).toBeGreaterThan(80);
    expect(second!.length).toBeLessThan(30);
  });

  test("keeps no credential and no target in the table", () => {
    const encoder = new HeaderEncoder();
    const before = encoder.tableBytes;
    const block = encoder.write([
      [":path", "/api/v1/secrets"],
      ["authorization", "Bearer abc"],
    ]);
    expect(encoder.tableBytes).toBe(before);
    // Never to be kept by anybody: 0001, and the name's index 23.
    expect(block.includes(hex("1f08"))).toBe(true);
  });

  test("holds through tables that grow, shrink and overflow", () => {
    const encoder = new HeaderEncoder();
    const decoder = new HeaderDecoder();
    let seed = 1;
    const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
    for (let i = 0; i < 3_000; i++) {
      if (random(10) === 0) encoder.resize([0, 64, 300, 4_096, MAX_WINDOW][random(5)]!);
      const fields: HeaderField[] = Array.from({ length: random(8) }, () =>
        random(3) === 0
          ? STATIC_FIELDS[random(STATIC_FIELDS.length)]!
          : [`x-${random(40)}`, Buffer.from(Array.from({ length: random(300) }, () => random(256))).toString("latin1")],
      );
      expect(decoder.read(encoder.write(fields), 1e6)).toEqual(fields);
      expect(decoder.tableBytes).toBe(encoder.tableBytes);
    }
  });
});
