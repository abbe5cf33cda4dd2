import { describe, expect, test } from "bun:test";
import { missingDocstrings } from "../../scripts/check/docstrings.ts";
import { forbiddenUses } from "../../scripts/check/forbidden.ts";
import { wrongImports } from "../../scripts/check/imports.ts";

const file = (path: string, text: string) => ({ path, text });

describe("docstrings", () => {
  test("an export without one is named", () => {
    const found = missingDocstrings([
      file("src/a.ts", "/** Said. */\nexport const good = 1;\nexport async function bad() {}\n"),
    ]);
    expect(found.map(({ problem }) => problem)).toEqual(['export "bad" has no docstring']);
  });
});

describe("imports", () => {
  test.each([
    ["backwards", "src/store/x.ts", 'import { a } from "../cache/y.ts";'],
    ["between neighbours", "src/proxy/x.ts", 'import { a } from "../health/y.ts";'],
    ["types backwards", "src/kube/x.ts", 'import type { A } from "../store/y.ts";'],
    ["the demo, at once", "src/cli/demo.ts", 'import { a } from "../demo/tour.ts";'],
    ["the demo, from elsewhere", "src/cli/run.ts", 'await import("../demo/tour.ts")'],
    ["the stand-in into the product", "src/demo/x.ts", 'import { a } from "../proxy/y.ts";'],
    ["an unknown folder", "src/odd/x.ts", 'import { a } from "../base/y.ts";'],
  ])("%s: found", (_name, path, text) => {
    expect(wrongImports([file(path, text)])).toHaveLength(1);
  });

  test.each([
    ["rightwards", "src/proxy/x.ts", 'import { a } from "../base/y.ts";'],
    ["within a folder", "src/proxy/x.ts", 'import { a } from "./y.ts";'],
    ["the demo on demand", "src/cli/demo.ts", 'await import("../demo/tour.ts")'],
  ])("%s: fine", (_name, path, text) => {
    expect(wrongImports([file(path, text)])).toEqual([]);
  });

  test("a circle of values is found, one of types is not", () => {
    const circle = (kind: string) => [
      file("src/base/a.ts", `import ${kind}{ b } from "./b.ts";`),
      file("src/base/b.ts", `import ${kind}{ a } from "./a.ts";`),
    ];
    expect(wrongImports(circle(""))).toHaveLength(1);
    expect(wrongImports(circle("type "))).toEqual([]);
  });
});

describe("forbidden uses", () => {
  test.each([
    ["src/proxy/x.ts", 'import { dlopen } from "bun:ffi";'],
    ["src/proxy/x.ts", "const session = http2.connect(url);"],
    ["src/cache/x.ts", 'import { CoreV1Api } from "@kubernetes/client-node";'],
    ["src/cache/x.ts", 'import { Database } from "bun:sqlite";'],
    ["src/proxy/x.ts", "Bun.serve({})"],
    ["src/proxy/upstream.ts", "{ rejectUnauthorized: false }"],
    ["src/proxy/x.ts", "// TODO later"],
    ["src/proxy/utils.ts", ""],
    ["src/proxy/BadName.ts", ""],
  ])("%s with %p is found", (path, text) => {
    expect(forbiddenUses([file(path, text)]).length).toBeGreaterThan(0);
  });

  test("types of the client library are fine", () => {
    expect(forbiddenUses([file("src/cache/x.ts", 'import type { V1Pod } from "@kubernetes/client-node";')])).toEqual(
      [],
    );
  });
});
