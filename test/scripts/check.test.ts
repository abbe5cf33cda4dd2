import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { missingDocstrings } from "../../scripts/check/docstrings.ts";
import { forbiddenUses } from "../../scripts/check/forbidden.ts";
import { wrongImports } from "../../scripts/check/imports.ts";
import { tooLong } from "../../scripts/check/lengths.ts";
import { projectRoot } from "../../scripts/setup.ts";
import { fastFolders } from "../../scripts/test.ts";

const file = (path: string, text: string) => ({ path, text });

describe("docstrings", () => {
  test.each([
    ["a function", "export async function bad() {}\n", "bad"],
    ["a class", "export abstract class bad {}\n", "bad"],
    ["a type", "export type bad = 1;\n", "bad"],
    ["a default", "export default { a: 1 };\n", "default"],
    ["one below a blank line", "/** Said. */\n\nexport const bad = 1;\n", "bad"],
    ["one below a comment that is no docstring", "/* Said. */\nexport const bad = 1;\n", "bad"],
  ])("%s without one is named", (_case, text, name) => {
    const found = missingDocstrings([file("src/a.ts", `/** Header. */\n\n${text}`)]);
    expect(found.map(({ problem }) => problem)).toEqual([`export "${name}" has no docstring`]);
  });

  test.each([
    ["a line", "/** Said. */\nexport const good = 1;\n"],
    ["several lines", "/**\n * Said.\n */\nexport enum good {}\n"],
    ["a decorator between", "/** Said. */\n@sealed\nexport class Good {}\n"],
    ["a line comment between", "/** Said. */\n// oxlint-disable-next-line no-new\nexport const good = 1;\n"],
    ["overloads", "/** Said. */\nexport function f(a: 1): 1;\nexport function f(a: 2): 2;\nexport function f(a) {}\n"],
  ])("%s: fine", (_case, text) => {
    expect(missingDocstrings([file("src/a.ts", text)])).toEqual([]);
  });
});

describe("imports", () => {
  test.each([
    ["backwards", "src/store/x.ts", 'import { a } from "../cache/y.ts";\na();'],
    ["backwards, for its effects", "src/store/x.ts", 'import "../cache/y.ts";'],
    ["backwards, over several lines", "src/store/x.ts", 'import {\n  a,\n  b,\n} from "../cache/y.ts";\na(b);'],
    ["backwards, passed on", "src/store/x.ts", 'export { a } from "../cache/y.ts";'],
    ["backwards, when asked", "src/store/x.ts", 'await import("../cache/y.ts");'],
    ["between neighbours", "src/front/x.ts", 'import { a } from "../health/y.ts";\na();'],
    ["types backwards", "src/kube/x.ts", 'import type { A } from "../store/y.ts";'],
    ["inline types backwards", "src/kube/x.ts", 'import { type A } from "../store/y.ts";'],
    ["a type by import()", "src/kube/x.ts", 'type A = import("../store/y.ts").A;'],
    ["the demo, at once", "src/cli/demo.ts", 'import { a } from "../demo/tour.ts";\na();'],
    ["the demo, from elsewhere", "src/cli/run.ts", 'await import("../demo/tour.ts")'],
    ["the stand-in into the product", "src/demo/x.ts", 'import { a } from "../front/y.ts";\na();'],
    ["main past the dispatch", "src/main.ts", 'import { a } from "./cli/run.ts";\na();'],
    ["a test", "src/base/x.ts", 'import { a } from "../../test/support/y.ts";\na();'],
    ["an unknown folder", "src/odd/x.ts", 'import { a } from "../base/y.ts";\na();'],
    ["what cannot be parsed", "src/base/x.ts", "import { from;"],
  ])("%s: found, once", (_name, path, text) => {
    expect(wrongImports([file(path, text)])).toHaveLength(1);
  });

  test.each([
    ["rightwards", "src/front/x.ts", 'import { a } from "../base/y.ts";\na();'],
    ["within a folder", "src/front/x.ts", 'import { a } from "./y.ts";\na();'],
    ["main to the dispatch", "src/main.ts", 'import { a } from "./cli/dispatch.ts";\na();'],
    ["the demo on demand", "src/cli/demo.ts", 'await import("../demo/tour.ts")'],
  ])("%s: fine", (_name, path, text) => {
    expect(wrongImports([file(path, text)])).toEqual([]);
  });

  test("a circle of values is found, when asked for too; one of types is not", () => {
    const circle = (first: string) => [
      file("src/base/a.ts", first),
      file("src/base/b.ts", 'import { c } from "./c.ts";\nc();'),
      file("src/base/c.ts", 'import { a } from "./a.ts";\na();'),
    ];
    const found = wrongImports(circle('import { b } from "./b.ts";\nb();'));
    expect(found).toHaveLength(1);
    expect(found[0]!.problem).toBe("imports itself by way of src/base/b.ts, src/base/c.ts");
    expect(wrongImports(circle('import type { b } from "./b.ts";'))).toEqual([]);
    expect(wrongImports(circle('await import("./b.ts");'))).toHaveLength(1);
  });
});

describe("forbidden uses", () => {
  test.each([
    ["src/front/x.ts", 'import { dlopen } from "bun:ffi";'],
    ["src/front/x.ts", 'await import("bun:ffi");'],
    ["src/front/x.ts", "const session = http2.connect(url);"],
    ["src/front/x.ts", 'import { connect } from "node:http2";'],
    ["src/guard/x.ts", 'import { CoreV1Api } from "@kubernetes/client-node";'],
    ["src/guard/x.ts", 'import {\n  CoreV1Api,\n} from "@kubernetes/client-node/dist/config.js";'],
    ["src/cache/x.ts", 'await import("@kubernetes/client-node");'],
    ["src/front/x.ts", 'await import("@kubernetes/client-node");'],
    ["src/daemon/x.ts", 'await import("@kubernetes/client-node/dist/gen/apis/CoreV1Api.js");'],
    ["src/cli/run.ts", 'await import("@kubernetes/client-node");'],
    ["src/cache/x.ts", 'import { Database } from "bun:sqlite";'],
    ["src/cache/x.ts", 'run("SELECT name FROM scopes");'],
    ["src/cli/x.ts", "run(`\n  DELETE FROM objects`);"],
    ["src/health/x.ts", 'run("PRAGMA quick_check");'],
    ["src/front/x.ts", "Bun.serve({})"],
    ["src/front/x.ts", "server.listen({ fd: 3 })"],
    ["src/uplink/upstream.ts", "{ rejectUnauthorized: false }"],
    ["src/uplink/upstream.ts", "{ checkServerIdentity: () => undefined }"],
    ["src/front/x.ts", 'export * from "./y.ts";'],
    ["src/front/index.ts", ""],
    ["src/front/x.ts", "// TODO later"],
    ["test/front/x.test.ts", "// FIXME later"],
    ["install.sh", "# TODO later"],
    ["src/front/utils.ts", ""],
    ["test/support/test-helpers.ts", ""],
    ["src/front/BadName.ts", ""],
    ["scripts/snake_case.ts", ""],
    ["README.md", "see src/main.ts:12"],
    ["README.md", "see line 12 of src/main.ts"],
    ["ARCHITECTURE.md", "src/main.ts#L12"],
  ])("%s with %p is found, once", (path, text) => {
    expect(forbiddenUses([file(path, text)])).toHaveLength(1);
  });

  test.each([
    ["src/cache/x.ts", 'import type { V1Pod } from "@kubernetes/client-node";'],
    ["src/guard/x.ts", 'await import("@kubernetes/client-node");'],
    ["src/cli/guard.ts", 'await import("@kubernetes/client-node");'],
    ["src/store/x.ts", 'import { Database } from "bun:sqlite";\nrun("SELECT name FROM scopes");'],
    ["src/cli/x.ts", '"Select one from the list, or update it"'],
    ["src/health/x.ts", "Bun.serve({})"],
    ["test/packaging/x.test.ts", "http2.connect(url, { rejectUnauthorized: false })"],
    ["README.md", "listens on 127.0.0.1:10268; five lines; see src/main.ts"],
  ])("%s with %p is fine", (path, text) => {
    expect(forbiddenUses([file(path, text)])).toEqual([]);
  });
});

describe("lengths", () => {
  const tree = (files: Readonly<Record<string, string>>) => {
    const root = mkdtempSync(join(tmpdir(), "holdfast-lengths-"));
    mkdirSync(join(root, "src"));
    for (const [path, text] of Object.entries(files)) writeFileSync(join(root, path), text);
    return root;
  };
  const lines = (count: number, line = "  a();") => Array.from({ length: count }, () => line).join("\n");

  test("a file over 400 lines and a function over 50 are found by name; comments and blank lines of a function are free", () => {
    const root = tree({
      "src/long.ts": lines(401, "a();"),
      "src/page.ts": `function long() {\n${lines(49)}\n}\nclass C {\n  method() {\n${lines(60)}\n  }\n}\n`,
      "src/fits.ts": `function fits() {\n${lines(48)}\n\n${lines(60, "  // why")}\n}\nconst f = () => {\n${lines(48)}\n};\n`,
      "src/whole.ts": lines(400, "a();"),
    });
    const found = tooLong(root, []).map(({ file, problem }) => `${file}: ${problem}`);
    expect(found.sort()).toEqual([
      expect.stringMatching(/^src\/long\.ts: .*\(401\)/),
      expect.stringMatching(/^src\/page\.ts: .*`long`.*\(51\)/),
      expect.stringMatching(/^src\/page\.ts: .*`method`.*\(62\)/),
    ]);
  });

  test("what is on the list is let pass, and what need not be on it any more is found", () => {
    const root = tree({ "src/long.ts": lines(401, "a();") });
    expect(tooLong(root, ["src/long.ts"])).toEqual([]);
    expect(tooLong(root, ["src/long.ts", "src/other.ts#gone"]).map(({ file }) => file)).toEqual(["src/other.ts#gone"]);
  });
});

test("bun run test runs every folder of test but the lab's", () => {
  const folders = fastFolders(projectRoot);
  expect(folders).toContain("./test/scripts");
  expect(folders).not.toContain("./test/lab");
});
