import { describe, expect, test } from "bun:test";
import { protobufCodec } from "../../src/kube/protobuf-codec.ts";
import type { Item } from "../../src/kube/codec.ts";
import {
  canonicalFieldSelector,
  canonicalLabelSelector,
  isSelectedWithin,
  parseFieldSelector,
  parseLabelSelector,
  selectionOf,
} from "../../src/kube/selectors.ts";
import { listMessage, messageOf, object } from "./selector-objects.ts";

const holds = (selector: string, labels: Record<string, string>) =>
  parseLabelSelector(selector)?.every(({ key, isMet }) => isMet(Object.hasOwn(labels, key) ? labels[key] : undefined));

describe("a label selector decides as k8s.io/apimachinery does", () => {
  // From pkg/labels/selector_test.go: TestSelectorMatches, TestSetMatches, TestRequirementSelectorMatching.
  const cases: readonly (readonly [string, Record<string, string>, boolean])[] = [
    ["", { x: "y" }, true],
    ["x=y", { x: "y" }, true],
    ["x=y,z=w", { x: "y", z: "w" }, true],
    ["x!=y,z!=w", { x: "z", z: "a" }, true],
    ["notin=in", { notin: "in" }, true],
    ["x", { x: "z" }, true],
    ["!x", { y: "z" }, true],
    ["x>1", { x: "2" }, true],
    ["x<1", { x: "0" }, true],
    ["x=z", {}, false],
    ["x=y", { x: "z" }, false],
    ["x=y,z=w", { x: "w", z: "w" }, false],
    ["x!=y,z!=w", { x: "z", z: "w" }, false],
    ["x", { y: "z" }, false],
    ["!x", { x: "z" }, false],
    ["x>1", { x: "0" }, false],
    ["x<1", { x: "2" }, false],
    ["x<1", { x: "many" }, false],
    ["x>1", {}, false],
    ["x>1", { x: "9223372036854775808" }, false],
    ["foo=bar,baz=blah", { foo: "bar", baz: "blah" }, true],
    ["foo!=bar", {}, true],
    ["foo!=bar", { foo: "bar" }, false],
    ["foo notin (bar)", {}, true],
    ["foo notin (bar, baz)", { foo: "baz" }, false],
    ["foo in (bar)", {}, false],
    ["x in (foo, baz), y in (bar)", { x: "baz", y: "bar" }, true],
    ["x in (foo, baz), y in (bar)", { x: "baz", y: "other" }, false],
    ["x,y in (a)", { x: "", y: "a" }, true],
    ["x in ()", { x: "" }, true],
    ["x in ()", { x: "a" }, false],
    ["x in (a,,b)", { x: "" }, true],
    ["x in (,)", { x: "" }, true],
    ["x in (a,)", { x: "" }, true],
    ["x=", { x: "" }, true],
    ["x=", {}, false],
    ["x=,z= ", { x: "", z: "" }, true],
    ["x==y", { x: "y" }, true],
    [" x = a ,\ty != b\n", { x: "a" }, true],
    ["in in (in)", { in: "in" }, true],
    ["!service.kubernetes.io/headless", { "service.kubernetes.io/headless": "" }, false],
    ["!service.kubernetes.io/headless", { app: "web" }, true],
    ["constructor", {}, false],
    ["__proto__x=1", {}, false],
  ];
  for (const [selector, labels, isMatch] of cases)
    test(`"${selector.replaceAll("\n", "\\n")}" on ${JSON.stringify(labels)}`, () => {
      if (selector.startsWith("__")) expect(parseLabelSelector(selector)).toBeUndefined();
      else expect(holds(selector, labels)).toBe(isMatch);
    });

  // From TestSelectorParse, TestParserRequirement and the lexer's corners.
  const wrong = [
    "x=a||y=b",
    "x==a==b",
    "!x=a",
    "x<a",
    "x>",
    "x in",
    "x in a",
    "x in (a",
    "x in a)",
    "x in (a b)",
    "x notin ((a))",
    "x y",
    ",x",
    "x,",
    "x,,y",
    "!",
    "!!x",
    "x===a",
    "x=a b",
    "(x)",
    "-x",
    "x-",
    "a/b/c",
    "/x",
    "UPPER/x",
    "x=-a",
    "x=a/b",
    "x=b\u00e9",
    `x=${"a".repeat(64)}`,
    `${"k".repeat(64)}=a`,
    `${"k".repeat(254)}/x`,
    "x=\0",
    "x\u00a0=a",
  ];
  for (const selector of wrong)
    test(`${JSON.stringify(selector.slice(0, 40))} is not one`, () =>
      expect(parseLabelSelector(selector)).toBeUndefined());
});

describe("a field selector", () => {
  const cases: readonly (readonly [string, Record<string, string>, boolean | undefined])[] = [
    ["", {}, true],
    [",", {}, true],
    ["a=1", { a: "1" }, true],
    ["a==1", { a: "1" }, true],
    ["a!=1", { a: "1" }, false],
    ["a=1,b!=2", { a: "1", b: "3" }, true],
    ["a=1,,b=2", { a: "1", b: "2" }, true],
    ["a=", { a: "" }, true],
    ["a=x\\,y\\=z\\\\", { a: "x,y=z\\" }, true],
    ["a!b=c", {}, undefined],
    ["a=b=c", {}, undefined],
    ["!=", {}, undefined],
    ["a=\\x", {}, undefined],
    ["a=b\\", {}, undefined],
    ["a", {}, undefined],
    ["a in (b)", {}, undefined],
  ];
  for (const [selector, fields, isMatch] of cases)
    test(`"${selector}" on ${JSON.stringify(fields)}`, () => {
      const parsed = parseFieldSelector(selector);
      // An unknown field is the resource's matter; "a!b" is one that no resource has.
      if (isMatch === undefined && parsed !== undefined)
        expect(select({ resource: "services", fieldSelector: selector })).toBeUndefined();
      else expect(parsed?.every(({ key, isMet }) => isMet(fields[key] ?? ""))).toBe(isMatch as boolean);
    });

  test("is only understood for fields that the resource can be asked for", () => {
    const known: readonly (readonly [string, string, string])[] = [
      ["", "services", "spec.clusterIP!=None"],
      ["", "services", "metadata.namespace=shop,spec.type=ClusterIP"],
      ["", "secrets", "type=Opaque"],
      ["", "nodes", "metadata.name=gw-1,spec.unschedulable=false"],
      ["", "pods", "spec.nodeName=gw-1,status.phase!=Failed,status.podIP=10.0.0.1"],
      ["discovery.k8s.io", "endpointslices", "metadata.name=a"],
      ["crd.projectcalico.org", "ippools", "metadata.name=a"],
    ];
    const unknown: readonly (readonly [string, string, string])[] = [
      ["", "services", "spec.clusterIPs=10.0.0.1"],
      ["", "nodes", "metadata.namespace=shop"],
      ["", "namespaces", "metadata.namespace=shop"],
      ["", "namespaces", "status.phase=Active"],
      ["", "events", "involvedObject.name=a"],
      ["", "pods", "spec.host=gw-1"],
      ["example.com", "services", "spec.type=ClusterIP"],
      ["", "services", "constructor=1"],
    ];
    for (const [group, resource, fieldSelector] of known)
      expect(select({ group, resource, fieldSelector })).toBeDefined();
    for (const [group, resource, fieldSelector] of unknown)
      expect(select({ group, resource, fieldSelector })).toBeUndefined();
  });
});

function select(request: {
  group?: string;
  resource: string;
  fieldSelector?: string;
  labelSelector?: string;
  namespace?: string;
}) {
  return selectionOf({ group: "", namespace: "", fieldSelector: "", labelSelector: "", ...request });
}

describe("a selection reads an item's own bytes", () => {
  const web = object("shop", "web", { app: "web", tier: "" }, { clusterIP: "10.0.0.1", type: "ClusterIP" });
  const headless = object("shop", "db", { app: "db" }, { clusterIP: "None", type: "ClusterIP" });
  const bare = object("other", "bare", {}, {});
  const all = { web, headless, bare };
  const names = (request: Parameters<typeof select>[0], format: "json" | "protobuf") =>
    Object.entries(all)
      .filter(([, one]) => select(request)!.matches(itemOf(one, format), format))
      .map(([name]) => name);
  const cases: readonly (readonly [Parameters<typeof select>[0], readonly string[]])[] = [
    [{ resource: "services" }, ["web", "headless", "bare"]],
    [{ resource: "services", namespace: "shop" }, ["web", "headless"]],
    [{ resource: "services", labelSelector: "app" }, ["web", "headless"]],
    [{ resource: "services", labelSelector: "tier=" }, ["web"]],
    [{ resource: "services", labelSelector: "app!=web" }, ["headless", "bare"]],
    [{ resource: "services", fieldSelector: "spec.clusterIP!=None" }, ["web", "bare"]],
    [{ resource: "services", fieldSelector: "spec.clusterIP=" }, ["bare"]],
    [{ resource: "services", fieldSelector: "metadata.name=web" }, ["web"]],
    [{ resource: "services", fieldSelector: "metadata.namespace!=shop", labelSelector: "!app" }, ["bare"]],
  ];
  for (const format of ["json", "protobuf"] as const)
    for (const [request, expected] of cases)
      test(`${format}: ${JSON.stringify(request)}`, () => expect(names(request, format)).toEqual([...expected]));

  test("booleans read false when unset, in either format", () => {
    for (const [unschedulable, selected] of [
      [undefined, "spec.unschedulable=false"],
      [true, "spec.unschedulable=true"],
      [false, "spec.unschedulable!=true"],
    ] as const) {
      const selection = select({ resource: "nodes", fieldSelector: selected })!;
      const spec = unschedulable === undefined ? {} : { unschedulable };
      for (const format of ["json", "protobuf"] as const)
        expect(selection.matches(itemOf({ ...object("", "gw-1", {}, spec), isNode: true }, format), format)).toBe(true);
    }
  });

  test("knows which selections only leave out, and which objects can come and go", () => {
    const of = (request: Omit<Parameters<typeof select>[0], "resource">) => {
      const { isAll, isBroad, mayChange } = select({ resource: "services", ...request })!;
      return { isAll, isBroad, mayChange };
    };
    expect(of({})).toEqual({ isAll: true, isBroad: true, mayChange: false });
    expect(of({ labelSelector: "!a", fieldSelector: "spec.clusterIP!=None" })).toEqual({
      isAll: false,
      isBroad: true,
      mayChange: true,
    });
    expect(of({ labelSelector: "a" })).toEqual({ isAll: false, isBroad: false, mayChange: true });
    expect(of({ namespace: "shop" })).toEqual({ isAll: false, isBroad: false, mayChange: false });
    expect(of({ fieldSelector: "metadata.name=a" })).toEqual({ isAll: false, isBroad: false, mayChange: false });
  });
});

function itemOf(one: ReturnType<typeof object> & { isNode?: boolean }, format: "json" | "protobuf"): Item {
  const meta = { namespace: one.metadata.namespace, name: one.metadata.name, uid: "u", resourceVersion: "1" };
  if (format === "json") return { meta, bytes: new TextEncoder().encode(JSON.stringify(one)) };
  // Through the reader, so that the bytes are what a scope keeps.
  const reader = protobufCodec.listReader();
  const [item] = reader.push(listMessage([messageOf(one)]));
  return { meta, bytes: item!.bytes };
}

describe("the same question in other words", () => {
  test.each([
    ["b=2,a=1", "a=1,b=2"],
    ["a==1", "a=1"],
    [" a = 1 ,\tb", "a=1,b"],
    ["a in (1)", "a=1"],
    ["a notin (1)", "a!=1"],
    ["a in (z, y,z)", "a in (y,z)"],
    ["a in (y,)", "a in (,y)"],
    ["a notin ( z,y )", "a notin (y,z)"],
    ["a=1,a=1", "a=1"],
    ["!a,a>007", "!a,a>7"],
    ["", ""],
    ["a=b=c", "a=b=c"],
    ["a in (b", "a in (b"],
  ])("label selector %p is %p", (selector, text) => {
    expect(canonicalLabelSelector(selector)).toBe(text);
    expect(canonicalLabelSelector(text)).toBe(text);
  });

  test.each([
    ["spec.nodeName==n,metadata.name=a", "metadata.name=a,spec.nodeName=n"],
    ["a!=b,", "a!=b"],
    ["a=x\\,y\\=z\\\\", "a=x\\,y\\=z\\\\"],
    ["a", "a"],
  ])("field selector %p is %p", (selector, text) => {
    expect(canonicalFieldSelector(selector)).toBe(text);
    expect(canonicalFieldSelector(text)).toBe(text);
  });

  test("what has every term of another lies within it", () => {
    const within = (narrow: string, wide: string) =>
      isSelectedWithin({ labelSelector: narrow, fieldSelector: "" }, { labelSelector: wide, fieldSelector: "" });
    expect([within("a=1,b", ""), within("b, a==1", "a in (1)"), within("a=1", "a=1,b"), within("a=b=c", "")]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});
