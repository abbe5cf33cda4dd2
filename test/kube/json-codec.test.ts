import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MalformedError, type Shape } from "../../src/kube/codec.ts";
import { jsonCodec } from "../../src/kube/json-codec.ts";
import { JsonListReader } from "../../src/kube/json-list-reader.ts";
import { JsonWatchReader } from "../../src/kube/json-watch-reader.ts";
import { bytesOf, cutAt, eventItem, pieces, readList, readWatch, textOf, writeList } from "./chunks.ts";

const pods: Shape = { listKind: "PodList", apiVersion: "v1", isBare: true };
const tabs: Shape = { listKind: "CronTabList", apiVersion: "stable.example.com/v1", isBare: false };
const partials: Shape = { listKind: "PartialObjectMetadataList", apiVersion: "meta.k8s.io/v1", isBare: false };
const columns = '[{"name":"Name","type":"string","format":"name","description":"","priority":0}]';
const table: Shape = { listKind: "Table", apiVersion: "meta.k8s.io/v1", isBare: true, columnDefinitions: columns };

// As kube-apiserver 1.37 writes them.
const web0 =
  '{"metadata":{"name":"web-0","namespace":"shop","uid":"7f1c","resourceVersion":"40","annotations":{"note":"a \\"}]}\\\\"}},"spec":{"hostname":"ünï-𝄞"}}';
const web1 = '{"metadata":{"name":"web-1","namespace":"shop","uid":"8a2d","resourceVersion":"41"}}';
const podList = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"41","continue":"next","remainingItemCount":3},"items":[${web0},${web1}]}\n`;
const tab =
  '{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"c","namespace":"shop","resourceVersion":"7","uid":"u"},"spec":{"kind":"x"}}';
const tabList = `{"apiVersion":"stable.example.com/v1","items":[${tab}],"kind":"CronTabList","metadata":{"continue":"","resourceVersion":"9"}}\n`;
const partial =
  '{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"web-0","namespace":"shop","uid":"7f1c","resourceVersion":"40"}}';
const partialList = `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"41"},"items":[${partial}]}\n`;
const row = `{"cells":["web-0","1/1"],"object":${partial}}`;
const tableList = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"41"},"columnDefinitions":${columns},"rows":[${row}]}\n`;

const samples = [
  { name: "a built-in list", text: podList, shape: pods, items: [web0, web1], resourceVersion: "41" },
  { name: "a custom resource's list", text: tabList, shape: tabs, items: [tab], resourceVersion: "9" },
  { name: "a metadata-only list", text: partialList, shape: partials, items: [partial], resourceVersion: "41" },
  { name: "a Table", text: tableList, shape: table, items: [row], resourceVersion: "41" },
];

const name = fc.string({ minLength: 1, maxLength: 12 });
const podObject = fc.record({
  metadata: fc.record(
    {
      name,
      namespace: name,
      uid: name,
      resourceVersion: fc.nat().map(String),
      annotations: fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })),
    },
    { requiredKeys: ["name"] },
  ),
  spec: fc.jsonValue(),
  "kind ": fc.string(),
});

describe("list reader", () => {
  for (const { name, text, shape, items, resourceVersion } of samples) {
    test(`${name} gives the same items however it is cut`, () => {
      const bytes = bytesOf(text);
      for (let size = 1; size <= bytes.length; size++) {
        const read = readList(jsonCodec, pieces(bytes, size));
        expect(read.items.map((item) => textOf(item.bytes))).toEqual(items);
        expect(read.head.shape).toEqual(shape);
        expect(read.head.resourceVersion).toBe(resourceVersion);
      }
    });

    test(`${name} cut short anywhere is refused`, () => {
      const bytes = bytesOf(text.trimEnd());
      for (let size = 0; size < bytes.length; size++)
        expect(() => readList(jsonCodec, [bytes.subarray(0, size)])).toThrow(MalformedError);
    });

    test(`${name} put together again reads the same`, () => {
      const read = readList(jsonCodec, [bytesOf(text)]);
      const written = writeList(
        jsonCodec,
        read.head.shape,
        resourceVersion,
        read.items.map((item) => item.bytes),
      );
      // Lists of custom resources carry an empty `continue`, as the API server's do.
      expect(JSON.parse(textOf(written)).metadata).toMatchObject({ resourceVersion });
      const again = readList(jsonCodec, [written]);
      expect(again.items).toEqual(read.items);
      expect(again.head).toEqual({ ...read.head, continueToken: "" });
      expect(textOf(written)).toEndWith("}\n");
    });
  }

  test("metadata and the continue token are read", () => {
    const { items, head } = readList(jsonCodec, [bytesOf(podList)]);
    expect(items[0]!.meta).toEqual({ namespace: "shop", name: "web-0", uid: "7f1c", resourceVersion: "40" });
    expect(head.continueToken).toBe("next");
  });

  test("a built-in list is written byte for byte as the API server writes it", () => {
    expect(textOf(writeList(jsonCodec, pods, "41", [bytesOf(web0), bytesOf(web1)]))).toBe(
      podList.replace(',"continue":"next","remainingItemCount":3', ""),
    );
    expect(textOf(writeList(jsonCodec, table, "41", [bytesOf(row)]))).toBe(tableList);
  });

  test("any objects, printed in any way and cut anywhere, come out as they stand in the list", () => {
    fc.assert(
      fc.property(
        fc.array(podObject),
        fc.constantFrom(undefined, 1, "\t", "  \r\n "),
        fc.array(fc.nat(), { maxLength: 8 }),
        fc.shuffledSubarray(["kind", "apiVersion", "metadata", "items"], { minLength: 4 }),
        (objects, indent, places, keys) => {
          const members: Record<string, unknown> = {
            kind: "PodList",
            apiVersion: "v1",
            metadata: { resourceVersion: "5" },
            items: objects,
          };
          const text = JSON.stringify(Object.fromEntries(keys.map((key) => [key, members[key]])), undefined, indent);
          const { items, head } = readList(jsonCodec, cutAt(bytesOf(text), places));
          expect(items.map((item) => JSON.parse(textOf(item.bytes)))).toEqual(JSON.parse(JSON.stringify(objects)));
          for (const item of items) expect(text).toContain(textOf(item.bytes));
          expect(head.resourceVersion).toBe("5");
        },
      ),
      { numRuns: 150 },
    );
  });

  const emptyLists = [
    {
      name: "null items",
      text: '{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":null}',
      isBare: true,
    },
    {
      name: "no items, Go's order",
      text: '{ "kind" : "PodList", "apiVersion":"v1", "metadata":{"resourceVersion":"1"}, "items" : [ ] }',
      isBare: true,
    },
    {
      name: "no items, sorted",
      text: '{"apiVersion":"x/v1","items":[],"kind":"CronTabList","metadata":{"resourceVersion":"1"}}',
      isBare: false,
    },
    {
      name: "no items, metadata only",
      text: '{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}',
      isBare: false,
    },
  ];
  for (const { name, text, isBare } of emptyLists) {
    test(`an empty list (${name}) is one, also when written and read again`, () => {
      const { items, head } = readList(jsonCodec, pieces(bytesOf(text), 3));
      expect(items).toEqual([]);
      expect(head.shape.isBare).toBe(isBare);
      expect(readList(jsonCodec, [writeList(jsonCodec, head.shape, "1", [])]).head).toEqual(head);
    });
  }

  test("items that hold objects like themselves are not cut inside", () => {
    const nested = (depth: number): string =>
      `{"metadata":{"name":"a"},"parts":[${depth === 0 ? "" : `${nested(depth - 1)},${nested(depth - 1)}`}]}`;
    const items = Array.from({ length: 40 }, (_, i) => nested(i % 4));
    const bytes = bytesOf(`{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[${items.join()}]}`);
    for (const size of [100, 1000, bytes.length])
      expect(readList(jsonCodec, pieces(bytes, size)).items.map((item) => textOf(item.bytes))).toEqual(items);
  });

  test("a custom resource may name its list as it likes", () => {
    const text = tabList.replace("CronTabList", "Tabs");
    const { head } = readList(jsonCodec, [bytesOf(text)]);
    expect(head.shape.itemKind).toBe("CronTab");
    expect(JSON.parse(textOf(jsonCodec.bookmark(head.shape, "9", true))).object.kind).toBe("CronTab");
  });

  const head = '{"kind":"PodList","apiVersion":"v1","metadata":{},';
  const hostile = [
    { name: "nothing", text: "" },
    { name: "a Status", text: '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":403}' },
    { name: "a Status that has items", text: '{"kind":"Status","apiVersion":"v1","metadata":{},"items":[]}' },
    { name: "one object", text: '{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}' },
    { name: "a list without items", text: '{"kind":"PodList","apiVersion":"v1","metadata":{}}' },
    { name: "items that are no array", text: `${head}"items":{}}` },
    { name: "items that are text", text: `${head}"items":"[]"}` },
    { name: "an escaped key", text: `${head}"\\u0069tems":[{"metadata":{"name":"a"}}]}` },
    { name: "two arrays of items", text: `${head}"items":[],"items":[]}` },
    { name: "a Table with items", text: '{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"items":[]}' },
    { name: "rows in a list", text: `${head}"rows":[{"object":{"metadata":{"name":"a"}}}],"items":null}` },
    { name: "no kind", text: '{"apiVersion":"v1","metadata":{},"items":[]}' },
    { name: "trailing garbage", text: `${head}"items":[]}x` },
    { name: "two lists", text: `${head}"items":[]}${head}"items":[]}` },
    { name: "items without commas", text: `${head}"items":[{"metadata":{"name":"a"}}{"metadata":{"name":"b"}}]}` },
    { name: "a comma too many", text: `${head}"items":[{"metadata":{"name":"a"}},]}` },
    { name: "a leading comma", text: `${head}"items":[,{"metadata":{"name":"a"}}]}` },
    { name: "items that are numbers", text: `${head}"items":[1]}` },
    { name: "an item of mixed brackets", text: `${head}"items":[{"metadata":{"name":"a"]}]}` },
    { name: "an item without a name", text: `${head}"items":[{"metadata":{}}]}` },
    { name: "an item that is no JSON", text: `${head}"items":[{"metadata":{"name":hunter2}}]}` },
    {
      name: "a row without an object",
      text: '{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[],"rows":[{"cells":[],"object":null}]}',
    },
    { name: "a list in an array", text: `[${head}"items":[]}]` },
    {
      name: "deep nesting",
      text: `${head}"items":[{"metadata":{"name":"a"},"x":${"[".repeat(100_000)}${"]".repeat(100_000)}`,
    },
  ];
  for (const { name, text } of hostile) {
    test(`${name} is refused`, () => {
      for (const size of [1, 7, 1 << 20])
        expect(() => readList(jsonCodec, pieces(bytesOf(text), size))).toThrow(MalformedError);
    });
  }

  test("bytes that are not UTF-8 are refused", () => {
    const bytes = bytesOf(podList);
    bytes[podList.indexOf("web-0")] = 0xff;
    expect(() => readList(jsonCodec, [bytes])).toThrow(MalformedError);
  });

  test("no error quotes what an object holds", () => {
    const bytes = bytesOf(`${head}"items":[{"metadata":{"name":"a"},"data":hunter2}]}`);
    try {
      readList(jsonCodec, [bytes]);
      throw new Error("was read");
    } catch (error) {
      expect(`${error} ${JSON.stringify(error)} ${(error as Error).cause}`).not.toContain("hunter2");
      expect(error).toBeInstanceOf(MalformedError);
    }
  });

  test("an endless envelope and an endless item are refused while they come", () => {
    const filler = new Uint8Array(64 * 1024).fill(0x20);
    const feed = (start: string) => {
      const reader = new JsonListReader();
      reader.push(bytesOf(start));
      for (let i = 0; i < 1000; i++) reader.push(filler);
    };
    expect(() => feed("")).toThrow(MalformedError);
    expect(() => feed(`${head}"items":[{"metadata":{"name":"`)).toThrow(MalformedError);
  });

  test("a list of 50 MB is read holding no more than one item", () => {
    const reader = new JsonListReader();
    const item = bytesOf(`{"metadata":{"name":"a"},"data":"${"x".repeat(20_000)}"},`);
    let count = reader.push(bytesOf(`${head}"items":[`)).length;
    let most = 0;
    for (let sent = 0; sent < 50_000_000; sent += item.length) {
      for (const half of [item.subarray(0, 9000), item.subarray(9000)]) {
        count += reader.push(half).length;
        most = Math.max(most, reader.bufferedBytes);
      }
    }
    count += reader.push(bytesOf('{"metadata":{"name":"z"}}]}')).length;
    reader.end();
    expect(count).toBe(Math.ceil(50_000_000 / item.length) + 1);
    expect(most).toBeLessThan(3 * item.length);
  });
});

describe("watch reader", () => {
  // As kube-apiserver writes them: built-in objects begin with kind and apiVersion.
  const pod = (item: string) => item.replace("{", '{"kind":"Pod","apiVersion":"v1",');
  const rowTable = (rv: string, defs: string, rows: string) =>
    `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"${rv}"},"columnDefinitions":${defs},"rows":${rows}}`;

  test("a stream gives the same frames however it is cut", () => {
    const stream = bytesOf(
      [
        `{"type":"ADDED","object":${pod(web0)}}`,
        ` \n{ "type" : "MODIFIED" , "object" : ${pod(web1)} }`,
        `{"object":${pod(web1)},"type":"DELETED"}`,
        '{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"50","creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"containers":null},"status":{}}}',
        '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (2)","reason":"Expired","code":410}}',
      ].join("") + "\n",
    );
    for (let size = 1; size <= stream.length; size++) {
      const frames = readWatch(jsonCodec, pods, pieces(stream, size));
      expect(frames.map((frame) => ("item" in frame ? `${frame.type} ${textOf(frame.item.bytes)}` : frame))).toEqual([
        `ADDED ${web0}`,
        `MODIFIED ${web1}`,
        `DELETED ${web1}`,
        { type: "BOOKMARK", resourceVersion: "50", isInitialEventsEnd: true },
        { type: "ERROR", code: 410, reason: "Expired", message: "too old resource version: 1 (2)" },
      ]);
    }
  });

  for (const { name, shape, items } of samples) {
    test(`${name}: an item sent as an event is the item again`, () => {
      for (const type of ["ADDED", "MODIFIED", "DELETED"] as const) {
        for (const item of items) {
          const event = jsonCodec.event(shape, type, bytesOf(item));
          expect(textOf(event)).toEndWith("}\n");
          const object = JSON.parse(textOf(event)).object;
          expect(object.kind).toBe(shape.listKind.replace(/List$/, ""));
          expect(object.apiVersion).toBe(shape.apiVersion);
          expect(textOf(eventItem(readWatch(jsonCodec, shape, [event])).bytes)).toBe(item);
        }
      }
    });
  }

  test("kind and apiVersion are cut out wherever they stand, and nothing else", () => {
    fc.assert(
      fc.property(
        podObject,
        fc.nat(10),
        fc.nat(10),
        fc.constantFrom(undefined, 2),
        (object, kindAt, versionAt, indent) => {
          const entries = Object.entries(object as object);
          const place = (at: number, entry: [string, unknown]) => entries.splice(at % (entries.length + 1), 0, entry);
          place(kindAt, ["kind", "Pod"]);
          place(versionAt, ["apiVersion", "v1"]);
          const text = JSON.stringify(Object.fromEntries(entries), undefined, indent);
          const item = eventItem(readWatch(jsonCodec, pods, [bytesOf(`{"type":"ADDED","object":${text}}\n`)]));
          if (indent === undefined) expect(textOf(item.bytes)).toBe(JSON.stringify(object));
          else expect(JSON.parse(textOf(item.bytes))).toEqual(JSON.parse(JSON.stringify(object)));
        },
      ),
      { numRuns: 200 },
    );
  });

  test("members named kind deeper inside stay", () => {
    const item =
      '{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"apps/v1","kind":"Job"}]},"spec":{"kind":"x"}}';
    const [spec, meta] = [
      '"spec":{"kind":"x"}',
      '"metadata":{"name":"a","ownerReferences":[{"apiVersion":"apps/v1","kind":"Job"}]}',
    ];
    expect(
      textOf(
        eventItem(
          readWatch(jsonCodec, pods, [
            bytesOf(`{"type":"ADDED","object":{${meta},"apiVersion":"v1",${spec},"kind":"Pod"}}`),
          ]),
        ).bytes,
      ),
    ).toBe(item);
  });

  test("Table events with and without headers, and Table bookmarks", () => {
    const annotated = partial.replace(
      '"resourceVersion":"40"',
      '"resourceVersion":"40","annotations":{"k8s.io/initial-events-end":"true"}',
    );
    const stream = [
      `{"type":"ADDED","object":${rowTable("40", columns, `[${row}]`)}}`,
      `{"type":"MODIFIED","object":${rowTable("40", "null", `[${row}]`)}}`,
      `{"type":"BOOKMARK","object":${rowTable("51", "null", `[{"cells":[],"object":${annotated}}]`)}}`,
      `{"type":"BOOKMARK","object":${rowTable("", "null", `[{"cells":[],"object":${partial}}]`)}}`,
      `{"type":"BOOKMARK","object":${rowTable("52", "null", "[]")}}`,
    ].join("\n");
    const frames = readWatch(jsonCodec, table, pieces(bytesOf(stream), 11));
    expect(frames.slice(0, 2).map((frame) => "item" in frame && textOf(frame.item.bytes))).toEqual([row, row]);
    expect(frames.slice(2)).toEqual([
      { type: "BOOKMARK", resourceVersion: "51", isInitialEventsEnd: true },
      { type: "BOOKMARK", resourceVersion: "40", isInitialEventsEnd: false },
      { type: "BOOKMARK", resourceVersion: "52", isInitialEventsEnd: false },
    ]);
  });

  const hostile = [
    { name: "an unknown type", shape: pods, text: `{"type":"SYNC","object":${web1}}` },
    { name: "no type", shape: pods, text: `{"object":${web1}}` },
    { name: "no object", shape: pods, text: '{"type":"ADDED"}' },
    { name: "an object that is text", shape: pods, text: '{"type":"ADDED","object":"x"}' },
    { name: "an object without metadata", shape: pods, text: '{"type":"ADDED","object":{}}' },
    {
      name: "an object of another kind",
      shape: pods,
      text: `{"type":"ADDED","object":${web1.replace("{", '{"kind":"Node",')}}`,
    },
    {
      name: "a Table in a stream of objects",
      shape: pods,
      text: `{"type":"ADDED","object":${rowTable("1", "null", `[${row}]`)}}`,
    },
    { name: "an object in a Table's stream", shape: table, text: `{"type":"ADDED","object":${web1}}` },
    {
      name: "a Table of two rows",
      shape: table,
      text: `{"type":"ADDED","object":${rowTable("1", "null", `[${row},${row}]`)}}`,
    },
    { name: "a Table of no rows", shape: table, text: `{"type":"ADDED","object":${rowTable("1", "null", "[]")}}` },
    { name: "a bookmark without a resourceVersion", shape: pods, text: '{"type":"BOOKMARK","object":{"metadata":{}}}' },
    { name: "garbage between events", shape: pods, text: `{"type":"ADDED","object":${web1}},` },
    { name: "an array", shape: pods, text: "[]" },
    { name: "no JSON", shape: pods, text: '{"type":"ADDED","object":{"metadata":{"name":"a"]}}}' },
    { name: "two members in one", shape: pods, text: `{"type":"ADDED","object":${web1},{}}` },
  ];
  for (const { name, shape, text } of hostile) {
    test(`${name} is refused`, () => {
      for (const size of [1, 1 << 20])
        expect(() => readWatch(jsonCodec, shape, pieces(bytesOf(text), size))).toThrow(MalformedError);
    });
  }

  test("newlines inside an event and none between events", () => {
    const printed = `{"type":"ADDED","object":${JSON.stringify(JSON.parse(web1), undefined, 1)}}`;
    for (const size of [1, 50, 1 << 20]) {
      const frames = readWatch(jsonCodec, pods, pieces(bytesOf(printed + printed), size));
      expect(frames.map((frame) => "item" in frame && JSON.parse(textOf(frame.item.bytes)))).toEqual([
        JSON.parse(web1),
        JSON.parse(web1),
      ]);
    }
  });

  test("a stream may end between events only", () => {
    const reader = new JsonWatchReader(pods);
    expect(reader.isBetweenFrames()).toBe(true);
    reader.push(bytesOf('{"type":"ADDED"'));
    expect(reader.isBetweenFrames()).toBe(false);
    reader.push(bytesOf(`,"object":${web1}}\n`));
    expect(reader.isBetweenFrames()).toBe(true);
  });

  test("an endless event is refused while it comes, and a large one leaves no memory behind", () => {
    const reader = new JsonWatchReader(pods);
    reader.push(bytesOf(`{"type":"ADDED","object":{"metadata":{"name":"a"},"x":"${"x".repeat(3_000_000)}`));
    expect(reader.push(bytesOf('"}}'))).toHaveLength(1);
    expect(reader.bufferedBytes).toBeLessThan(1_000_000);
    expect(() => {
      reader.push(bytesOf('{"type":"'));
      for (let i = 0; i < 1000; i++) reader.push(new Uint8Array(64 * 1024).fill(0x20));
    }).toThrow(MalformedError);
  });
});

describe("writing", () => {
  for (const { name, shape } of samples) {
    test(`${name}: bookmarks read back, with kind and apiVersion`, () => {
      for (const isInitialEventsEnd of [true, false]) {
        const bytes = jsonCodec.bookmark(shape, "77", isInitialEventsEnd);
        expect(readWatch(jsonCodec, shape, [bytes])).toEqual([
          { type: "BOOKMARK", resourceVersion: "77", isInitialEventsEnd },
        ]);
        expect(JSON.parse(textOf(bytes)).object).toMatchObject({
          kind: shape.listKind.replace(/List$/, ""),
          apiVersion: shape.apiVersion,
        });
      }
    });
  }

  test("an ERROR event carries the whole Status", () => {
    const bytes = jsonCodec.errorEvent({ code: 410, reason: "Expired", message: "too old" });
    expect(textOf(bytes)).toBe(
      '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}}\n',
    );
    expect(readWatch(jsonCodec, pods, [bytes])).toEqual([
      { type: "ERROR", code: 410, reason: "Expired", message: "too old" },
    ]);
  });

  test("a single object has kind and apiVersion; a single row is a Table", () => {
    expect(textOf(jsonCodec.single(pods, bytesOf(web1)))).toBe(
      `${web1.replace("{", '{"kind":"Pod","apiVersion":"v1",')}\n`,
    );
    expect(textOf(jsonCodec.single(tabs, bytesOf(tab)))).toBe(`${tab}\n`);
    expect(textOf(jsonCodec.single(table, bytesOf(row)))).toBe(tableList.replace('"41"', '"40"'));
  });

  const edits = [
    { name: "replaced", item: web1, expected: web1.replace('"41"', '"99"') },
    {
      name: "replaced with spaces kept",
      item: '{ "metadata" : { "name":"a" , "resourceVersion" : "1" } }',
      expected: '{ "metadata" : { "name":"a" , "resourceVersion" : "99" } }',
    },
    {
      name: "inserted",
      item: '{"spec":{"resourceVersion":"1"},"metadata":{"name":"a"}}',
      expected: '{"spec":{"resourceVersion":"1"},"metadata":{"resourceVersion":"99","name":"a"}}',
    },
    { name: "inserted into nothing", item: '{"metadata":{}}', expected: '{"metadata":{"resourceVersion":"99"}}' },
    { name: "replaced in a row", item: row, expected: row.replace('"40"', '"99"') },
  ];
  for (const { name, item, expected } of edits) {
    test(`the resourceVersion is ${name}`, () => {
      expect(textOf(jsonCodec.withResourceVersion(bytesOf(item), "99"))).toBe(expected);
    });
  }
});
