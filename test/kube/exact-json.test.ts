import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MalformedError } from "../../src/kube/codec.ts";
import { type Json, parseExact, rewritten, writeExact } from "../../src/kube/exact-json.ts";

type Fields = { readonly [key: string]: Json };

const parse = (text: string) => parseExact(Buffer.from(text));
const rewrite = (text: string, after: Json) => Buffer.from(rewritten(Buffer.from(text), parse(text), after)).toString();

test.each([
  ["the largest integer of a double", "9007199254740991", 9007199254740991],
  ["the first that it cannot tell from the next", "9007199254740992", 9007199254740992n],
  ["the next", "9007199254740993", 9007199254740993n],
  ["below zero", "-9007199254740993", -9007199254740993n],
  ["the largest of 64 bits", "9223372036854775807", 9223372036854775807n],
  ["the smallest of 64 bits", "-9223372036854775808", -9223372036854775808n],
  ["one more than 64 bits", "9223372036854775808", 9223372036854775808],
  ["a large number with an exponent", "9007199254740993e0", 9007199254740992],
  ["a whole number with a fraction", "1.0", 1],
  ["a whole number with an exponent", "1e3", 1000],
  ["a zero below zero", "-0", 0],
  ["a fraction", "0.1", 0.1],
] as const)("parseExact reads %s", (_, text, value) => {
  expect(parse(text)).toBe(value);
  expect(parse(`{"a":[ ${text}]}`)).toStrictEqual({ a: [value] });
});

test.each([
  ["a number that is none to Go either", '{"a":1e400}'],
  ["text that is not JSON", '{"a":'],
  ["JSON that is not UTF-8", Buffer.from([0x22, 0xff, 0x22])],
])("parseExact refuses %s", (_, text) => {
  expect(() => parseExact(Buffer.from(text))).toThrow(MalformedError);
});

test("writeExact spells as Go does", () => {
  expect(writeExact({ a: 9007199254740993n, b: 1e21, c: "<a & b>\u2028", "<": null })).toBe(
    '{"a":9007199254740993,"b":1e+21,"c":"\\u003ca \\u0026 b\\u003e\\u2028","\\u003c":null}',
  );
});

describe("rewritten", () => {
  const text =
    '{ "n":9007199254740993,"odd" : 1.0,"odd":1e3, "s":"\\u003c\\/","list":[1, -0,{"a":9223372036854775807,"b":2}],"z":{}}';
  const value = parse(text) as Fields;

  test.each([
    ["nothing", value, text],
    ["one member", { ...value, s: "other" }, text.replace('"\\u003c\\/"', '"other"')],
    ["a member that stands there twice", { ...value, odd: 5 }, text.replace('"odd" : 1.0,"odd":1e3', '"odd":5')],
    [
      "a member deep inside",
      { ...value, list: [1, 0, { a: 9223372036854775807n, b: 3 }] },
      text.replace('"b":2', '"b":3'),
    ],
    ["an element that goes", { ...value, list: [1] }, text.replace(/\[.*\]/, "[1]")],
    ["all elements go", { ...value, list: [] }, text.replace(/\[.*\]/, "[]")],
    [
      "an element that comes",
      { ...value, list: [...(value["list"] as Json[]), "<"] },
      text.replace("]", ',"\\u003c"]'),
    ],
    ["a member that comes", { ...value, new: 9007199254740995n }, text.replace(/}$/, ',"new":9007199254740995}')],
    ["a member of an empty map", { ...value, z: { a: 1 } }, text.replace('"z":{}', '"z":{"a":1}')],
    ["another type", { ...value, z: [] }, text.replace('"z":{}', '"z":[]')],
  ] as const)("changes %s and no other byte", (_, after, expected) => {
    expect(rewrite(text, after)).toBe(expected);
  });

  test.each(["n", "odd", "s", "list", "z"])("takes %s out without a trace", (key) => {
    const { [key]: _, ...after } = value;
    const made = rewrite(text, after);
    expect(made).not.toContain(`"${key}"`);
    expect(parse(made)).toStrictEqual(after);
  });

  test("means what was asked for, whatever there was, and leaves equal members alone", () => {
    const keys = fc.constantFrom("a", "b", "__proto__", "constructor", "<");
    const number = fc.oneof(fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n }), fc.integer());
    const { any } = fc.letrec<{ any: Json }>((tie) => ({
      any: fc.oneof(
        { maxDepth: 3 },
        fc.oneof(number, fc.string(), fc.boolean(), fc.constant(null)),
        fc.array(tie("any"), { maxLength: 3 }),
        fc.dictionary(keys, tie("any"), { maxKeys: 4 }),
      ),
    }));
    const object = fc.dictionary(keys, any, { maxKeys: 5 });
    fc.assert(
      fc.property(object, object, fc.constant({ spelled: 1 }), (before, after, tail) => {
        const source = `{${[
          ...Object.entries(before).map(([key, field]) => `${writeExact(key)} : ${writeExact(field)}`),
          '"spelled":1.0',
        ].join(" , ")}}`;
        const made = rewrite(source, { ...after, ...tail });
        expect(parse(made)).toStrictEqual(parse(writeExact({ ...after, ...tail })));
        expect(made).toContain('"spelled":1.0');
      }),
      { numRuns: 500 },
    );
  });
});
