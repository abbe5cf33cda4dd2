import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { calledOperations, withOperations } from "../../scripts/client-classes.ts";
import { projectRoot } from "../../scripts/setup.ts";

const GENERATED = join(projectRoot, "node_modules/@kubernetes/client-node/dist/gen");
const FILES = [
  "apis/CoreV1Api.js",
  "apis/CoordinationV1Api.js",
  "apis/CertificatesV1Api.js",
  "apis/AdmissionregistrationV1Api.js",
];
const called = calledOperations(readFileSync(join(projectRoot, "src/guard/api-classes.ts"), "utf8"));

test("each operation that the guard calls is kept, whole, and no other one is", () => {
  expect(called).toContain("patchNodeStatus");
  const kept = new Set<string>();
  for (const path of FILES) {
    const text = readFileSync(join(GENERATED, path), "utf8");
    const cut = withOperations(text, called, (name) => void kept.add(name));
    new Bun.Transpiler({ loader: "js" }).transformSync(cut);
    for (const [, name] of cut.matchAll(/^ {4}async (\w+)\(/gm))
      expect([...called]).toContain(name!.replace(/WithHttpInfo$/, ""));
    // Beside methods and comments nothing is lost.
    const rest = (source: string) =>
      source.split("\n").filter((line) => /^(?:export|import|\/\/|const|let)/.test(line));
    expect(rest(cut)).toEqual(rest(text));
    expect(cut.length).toBeLessThan(text.length / 4);
  }
  expect([...called].filter((name) => !kept.has(name))).toEqual([]);
});

test("a method's neighbours stay, comments go, and the constructor is nobody's operation", () => {
  const text = `export class Api {
    constructor(a) {
        this.a = a;
    }
    /**
     * Says a.
     */
    async readA(name, _options) {
        if (name) {
            return { a: 1 };
        }
    }
    readAWithHttpInfo(name) {
        return name;
    }
    readAB(name) {
        return name;
    }
}
`;
  expect(withOperations(text, new Set(["readA"]), () => {})).toBe(
    text.replace(/ {4}\/\*\*[^]*?\*\/\n/, "").replace(/ {4}readAB[^]*? {4}\}\n/, ""),
  );
});
