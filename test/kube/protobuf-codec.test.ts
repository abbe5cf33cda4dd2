import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MalformedError, type Shape } from "../../src/kube/codec.ts";
import { protobufCodec } from "../../src/kube/protobuf-codec.ts";
import { ProtobufListReader } from "../../src/kube/protobuf-list-reader.ts";
import { ProtobufWatchReader } from "../../src/kube/protobuf-watch-reader.ts";
import { bytesOf, cutAt, eventItem, pieces, readList, readWatch, writeList } from "./chunks.ts";

const endpoints: Shape = { listKind: "EndpointSliceList", apiVersion: "discovery.k8s.io/v1", isBare: true };
const partials: Shape = { listKind: "PartialObjectMetadataList", apiVersion: "meta.k8s.io/v1", isBare: true };

/** A second, naive writer, so that reader and writer under test do not only agree with each other. */
function field(number: number, content: string | Uint8Array): Uint8Array {
  const bytes = typeof content === "string" ? bytesOf(content) : content;
  return concat(varint(number * 8 + 2), varint(bytes.length), bytes);
}
function varint(value: number): Uint8Array {
  const out: number[] = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 128n) return Uint8Array.from([...out, Number(rest)]);
    out.push(Number(rest & 127n) | 128);
  }
}
const concat = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const magic = bytesOf("k8s\0");
const typeMeta = (apiVersion: string, kind: string) => field(1, concat(field(1, apiVersion), field(2, kind)));
const unknownEnd = concat(field(3, ""), field(4, ""));
const wrap = (apiVersion: string, kind: string, raw: Uint8Array) =>
  concat(magic, typeMeta(apiVersion, kind), field(2, raw), unknownEnd);
const frame = (type: string, object: Uint8Array) => {
  const event = concat(field(1, type), field(2, field(1, object)));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(event.length);
  return concat(length, event);
};
const object = (meta: Record<string, string>, ...rest: Uint8Array[]) =>
  concat(
    field(
      1,
      concat(
        field(1, meta["name"] ?? ""),
        field(2, ""),
        field(3, meta["namespace"] ?? ""),
        field(5, meta["uid"] ?? ""),
        field(6, meta["resourceVersion"] ?? ""),
        concat(varint(7 * 8), varint(3)),
        field(12, concat(field(1, "k"), field(2, "v"))),
      ),
    ),
    ...rest,
  );

// A field of every wire type and of numbers that no release has: they must survive.
const strange = concat(
  field(2, "AddressType"),
  varint(77 * 8),
  varint(2 ** 40),
  varint(500 * 8 + 1),
  new Uint8Array(8).fill(9),
  varint(501 * 8 + 5),
  new Uint8Array(4).fill(7),
);
const web0 = object({ name: "web-0", namespace: "shop", uid: "7f1c", resourceVersion: "40" }, strange);
const web1 = object(
  { name: "web-1", namespace: "shop", uid: "8a2d", resourceVersion: "41" },
  field(3, "x".repeat(300)),
);
const listMeta = concat(field(1, ""), field(2, "41"), field(3, ""));
const list = wrap(
  "discovery.k8s.io/v1",
  "EndpointSliceList",
  concat(field(1, listMeta), field(2, web0), field(2, web1)),
);

const anyObject = fc.record({
  name: fc.string({ minLength: 1 }),
  namespace: fc.string(),
  uid: fc.string(),
  resourceVersion: fc.nat().map(String),
  rest: fc.uint8Array({ maxLength: 400 }),
});

describe("list reader", () => {
  test("a list gives the same items however it is cut", () => {
    for (let size = 1; size <= list.length; size++) {
      const { items, head } = readList(protobufCodec, pieces(list, size));
      expect(items.map(({ bytes }) => bytes)).toEqual([web0, web1]);
      expect(items[0]!.meta).toEqual({ namespace: "shop", name: "web-0", uid: "7f1c", resourceVersion: "40" });
      expect(head).toEqual({ shape: endpoints, resourceVersion: "41", continueToken: "" });
    }
  });

  test("any objects survive list, items, list, at any cuts", () => {
    fc.assert(
      fc.property(fc.array(anyObject), fc.array(fc.nat(), { maxLength: 8 }), (objects, places) => {
        const items = objects.map(({ rest, ...meta }) => object(meta, field(19, rest)));
        const written = writeList(protobufCodec, endpoints, "5", items);
        const read = readList(protobufCodec, cutAt(written, places));
        expect(read.items.map(({ bytes }) => bytes)).toEqual(items);
        expect(read.items.map(({ meta }) => meta)).toEqual(
          objects.map(({ namespace, name, uid, resourceVersion }) => ({ namespace, name, uid, resourceVersion })),
        );
        expect(read.head).toEqual({ shape: endpoints, resourceVersion: "5", continueToken: "" });
      }),
      { numRuns: 150 },
    );
  });

  test("a list is written byte for byte as the API server writes it", () => {
    expect(writeList(protobufCodec, endpoints, "41", [web0, web1])).toEqual(list);
  });

  test("the order of fields does not matter, and what is unknown in the envelope is passed over", () => {
    const raw = concat(
      varint(9 * 8),
      varint(7),
      field(2, web0),
      field(7, "new"),
      field(1, concat(field(3, "more"), varint(4 * 8), varint(12), field(2, "41"))),
      field(2, web1),
    );
    const text = concat(magic, field(2, raw), field(9, "x"), typeMeta("discovery.k8s.io/v1", "EndpointSliceList"));
    for (const size of [1, 5, text.length]) {
      const { items, head } = readList(protobufCodec, pieces(text, size));
      expect(items.map(({ bytes }) => bytes)).toEqual([web0, web1]);
      expect(head).toEqual({ shape: endpoints, resourceVersion: "41", continueToken: "more" });
    }
  });

  test("a list cut short anywhere inside is refused", () => {
    // The last four bytes are contentEncoding and contentType, both empty: whether they are there says nothing.
    for (let size = 0; size < list.length; size++) {
      if (size === list.length - unknownEnd.length || size === list.length - 2) continue;
      expect(() => readList(protobufCodec, [list.subarray(0, size)])).toThrow(MalformedError);
    }
  });

  const hostile = [
    { name: "JSON", bytes: bytesOf('{"kind":"PodList"}') },
    { name: "a Status", bytes: wrap("v1", "Status", concat(field(1, ""), field(2, "Failure"))) },
    { name: "one object", bytes: wrap("v1", "Pod", web0) },
    { name: "no body", bytes: concat(magic, typeMeta("v1", "PodList"), unknownEnd) },
    { name: "no kind", bytes: concat(magic, field(2, field(1, listMeta))) },
    {
      name: "two bodies",
      bytes: concat(magic, typeMeta("v1", "PodList"), field(2, field(1, listMeta)), field(2, field(1, listMeta))),
    },
    {
      name: "a content encoding",
      bytes: concat(magic, typeMeta("v1", "PodList"), field(2, field(1, listMeta)), field(3, "gzip")),
    },
    {
      name: "an item longer than its list",
      bytes: concat(
        magic,
        typeMeta("v1", "PodList"),
        varint(18),
        varint(4),
        varint(18),
        varint(100),
        new Uint8Array(200),
      ),
    },
    { name: "an item without a name", bytes: wrap("v1", "PodList", field(2, field(1, field(3, "shop")))) },
    {
      name: "an item that is no message",
      bytes: wrap("v1", "PodList", field(2, concat(web0, Uint8Array.of(0x0a, 0xff)))),
    },
    { name: "an item of a group", bytes: wrap("v1", "PodList", field(2, concat(web0, Uint8Array.of(0x13)))) },
    { name: "field number 0", bytes: wrap("v1", "PodList", field(0, "x")) },
    { name: "an endless varint", bytes: concat(magic, new Uint8Array(64).fill(0xff)) },
    { name: "trailing garbage", bytes: concat(list, Uint8Array.of(0x0a)) },
    { name: "two lists", bytes: concat(list, list) },
  ];
  for (const { name, bytes } of hostile) {
    test(`${name} is refused`, () => {
      for (const size of [1, 3, 1 << 20])
        expect(() => readList(protobufCodec, pieces(bytes, size))).toThrow(MalformedError);
    });
  }

  test("random damage is refused or read, never anything else", () => {
    fc.assert(
      fc.property(fc.nat(list.length - 1), fc.nat(255), fc.integer({ min: 1, max: 64 }), (at, byte, size) => {
        const damaged = list.slice();
        damaged[at] = byte;
        try {
          readList(protobufCodec, pieces(damaged, size));
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedError);
        }
      }),
      { numRuns: 400 },
    );
  });

  test("a length that is only claimed allocates nothing and is refused above 16 MiB", () => {
    const start = concat(magic, typeMeta("v1", "PodList"), varint(18), varint(2 ** 31));
    const reader = new ProtobufListReader();
    reader.push(concat(start, varint(18), varint(16 * 1024 * 1024)));
    expect(reader.bufferedBytes).toBeLessThan(64 * 1024);
    expect(() => reader.end()).toThrow(MalformedError);
    expect(() => new ProtobufListReader().push(concat(start, varint(18), varint(16 * 1024 * 1024 + 1)))).toThrow(
      MalformedError,
    );
    expect(() => new ProtobufListReader().push(concat(magic, field(1, ""), varint(10), varint(2 ** 40)))).toThrow(
      MalformedError,
    );
  });

  test("a list of 50 MB is read holding no more than one item and one chunk", () => {
    const item = field(2, object({ name: "a" }, field(9, "x".repeat(20_000))));
    const count = Math.ceil(50_000_000 / item.length);
    const reader = new ProtobufListReader();
    reader.push(concat(magic, typeMeta("v1", "SecretList"), varint(18), varint(count * item.length)));
    let read = 0;
    let most = 0;
    for (let i = 0; i < count; i++) {
      for (const half of [item.subarray(0, 9000), item.subarray(9000)]) {
        read += reader.push(half).length;
        most = Math.max(most, reader.bufferedBytes);
      }
    }
    expect(reader.end().shape.listKind).toBe("SecretList");
    expect(read).toBe(count);
    expect(most).toBeLessThan(3 * item.length);
  });
});

describe("watch reader", () => {
  const slice = (item: Uint8Array) => wrap("discovery.k8s.io/v1", "EndpointSlice", item);
  const endMark = field(12, concat(field(1, "k8s.io/initial-events-end"), field(2, "true")));
  const status = concat(
    field(1, listMeta),
    field(2, "Failure"),
    field(3, "too old"),
    field(4, "Expired"),
    varint(6 * 8),
    varint(410),
  );
  const stream = concat(
    frame("ADDED", slice(web0)),
    frame("MODIFIED", slice(web1)),
    frame("DELETED", slice(web1)),
    frame(
      "BOOKMARK",
      slice(field(1, concat(field(1, ""), field(6, "50"), field(12, concat(field(1, "k"), field(2, "true")))))),
    ),
    frame("BOOKMARK", slice(concat(field(1, concat(field(6, "51"), endMark)), field(4, "")))),
    frame("ERROR", wrap("v1", "Status", status)),
  );

  test("a stream gives the same frames however it is cut", () => {
    for (let size = 1; size <= stream.length; size += 1 + (size >> 4)) {
      const frames = readWatch(protobufCodec, endpoints, pieces(stream, size));
      expect(frames.map((f) => ("item" in f ? { type: f.type, bytes: f.item.bytes } : f))).toEqual([
        { type: "ADDED", bytes: web0 },
        { type: "MODIFIED", bytes: web1 },
        { type: "DELETED", bytes: web1 },
        { type: "BOOKMARK", resourceVersion: "50", isInitialEventsEnd: false },
        { type: "BOOKMARK", resourceVersion: "51", isInitialEventsEnd: true },
        { type: "ERROR", code: 410, reason: "Expired", message: "too old" },
      ]);
    }
  });

  test("an event is written byte for byte as the API server writes it, and its item is the list's item", () => {
    for (const type of ["ADDED", "MODIFIED", "DELETED"] as const) {
      const event = protobufCodec.event(endpoints, type, web0);
      expect(event).toEqual(frame(type, slice(web0)));
      expect(eventItem(readWatch(protobufCodec, endpoints, [event])).bytes).toEqual(web0);
    }
    expect(protobufCodec.single(partials, web0)).toEqual(wrap("meta.k8s.io/v1", "PartialObjectMetadata", web0));
  });

  test("what is written is read: bookmarks and errors", () => {
    for (const isInitialEventsEnd of [true, false]) {
      expect(
        readWatch(protobufCodec, endpoints, [protobufCodec.bookmark(endpoints, "77", isInitialEventsEnd)]),
      ).toEqual([{ type: "BOOKMARK", resourceVersion: "77", isInitialEventsEnd }]);
    }
    const error = protobufCodec.errorEvent({
      code: 504,
      reason: "Timeout",
      message: "later",
      causes: [{ reason: "ResourceVersionTooLarge", message: "x" }],
      retryAfterSeconds: 1,
    });
    expect(readWatch(protobufCodec, endpoints, [error])).toEqual([
      { type: "ERROR", code: 504, reason: "Timeout", message: "later" },
    ]);
  });

  const length = (size: number) =>
    Uint8Array.of((size >>> 24) & 255, (size >>> 16) & 255, (size >>> 8) & 255, size & 255);
  const hostile = [
    { name: "an unknown type", bytes: frame("SYNC", slice(web0)) },
    { name: "an empty frame", bytes: length(0) },
    { name: "a frame without an object", bytes: concat(length(7), field(1, "ADDED")) },
    { name: "an object without its envelope", bytes: frame("ADDED", web0) },
    { name: "an object of another kind", bytes: frame("ADDED", wrap("v1", "Pod", web0)) },
    { name: "an object without a name", bytes: frame("ADDED", slice(field(1, field(3, "shop")))) },
    { name: "a bookmark without a resourceVersion", bytes: frame("BOOKMARK", slice(field(1, ""))) },
    { name: "a frame of 4 GiB", bytes: length(0xffffffff) },
    { name: "JSON", bytes: bytesOf('{"type":"ADDED"}') },
  ];
  for (const { name, bytes } of hostile) {
    test(`${name} is refused`, () => {
      for (const size of [1, 1 << 20])
        expect(() => readWatch(protobufCodec, endpoints, pieces(bytes, size))).toThrow(MalformedError);
    });
  }

  test("a stream may end between frames only, and a claimed length allocates nothing", () => {
    const reader = new ProtobufWatchReader(endpoints);
    reader.push(stream.subarray(0, 3));
    expect(reader.isBetweenFrames()).toBe(false);
    reader.push(stream.subarray(3));
    expect(reader.isBetweenFrames()).toBe(true);
    reader.push(length(16 * 1024 * 1024));
    expect(reader.bufferedBytes).toBeLessThan(64 * 1024);
  });
});

describe("withResourceVersion", () => {
  test("the new text replaces the old, and every other byte stays", () => {
    const edited = protobufCodec.withResourceVersion(web0, "1234567890123");
    expect(edited).toEqual(
      object({ name: "web-0", namespace: "shop", uid: "7f1c", resourceVersion: "1234567890123" }, strange),
    );
    expect(protobufCodec.withResourceVersion(edited, "40")).toEqual(web0);
  });

  test("a missing one is put where Go would write it", () => {
    const item = concat(field(1, concat(field(1, "a"), field(12, ""))), field(2, "x"));
    expect(protobufCodec.withResourceVersion(item, "9")).toEqual(
      concat(field(1, concat(field(1, "a"), field(6, "9"), field(12, ""))), field(2, "x")),
    );
    expect(() => protobufCodec.withResourceVersion(field(2, "x"), "9")).toThrow(MalformedError);
  });
});
