/**
 * Of @kubernetes/client-node's API classes, the operations that are called.
 *
 * A bundler leaves out functions that nobody names, never a class's methods: a
 * few operations brought a thousand along, half of all our code. The package's
 * files are generated, one method after another at the same indentation, so
 * what is not called is cut by that.
 *
 * An executable carries its source, for the places in a log line. Of packages it
 * carries it without comments and indentation: 0.3 MB of the download for places
 * that nobody looks for.
 *
 * Nobody calls one by a computed name (`src/guard/api-classes.ts` names each),
 * and one that is missing all the same fails to build here.
 */
import type { BunPlugin } from "bun";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "./setup.ts";

const CALLER = join(projectRoot, "src/guard/api-classes.ts");
const GENERATED =
  /@kubernetes\/client-node\/dist\/gen\/(?:apis\/\w+Api|types\/(?:Observable|ObjectParam|Promise)API)\.js$/;
const PACKAGED = /node_modules\/.*\.m?js$/;
/** What is no module is left as it is. */
const MODULE = /^(?:import|export)\b/m;
const METHOD = /^ {4}(?:async )?(\w+)\([^\n]*\) \{\n[^]*?^ {4}\}\n/gm;
const COMMENT = /^ {4}\/\*\*\n(?: {5}\*[^\n]*\n)*/gm;
const WITH_HEAD = "WithHttpInfo";

/** The operations that a source calls: `core.readNode(`, and what it is made of. */
export function calledOperations(source: string): ReadonlySet<string> {
  const calls = [...source.matchAll(/\.((?:read|list|create|replace|patch|delete)(?!Configuration)[A-Z]\w*)\(/g)];
  return new Set(calls.map(([, name]) => name!));
}

/** A generated file without the methods of other operations. @param found is told of each operation that is kept. */
export function withOperations(text: string, called: ReadonlySet<string>, found: (name: string) => void): string {
  return text.replace(COMMENT, "").replace(METHOD, (method, name: string) => {
    if (name === "constructor") return method;
    const operation = name.endsWith(WITH_HEAD) ? name.slice(0, -WITH_HEAD.length) : name;
    if (!called.has(operation)) return "";
    found(operation);
    return method;
  });
}

/** Cuts while bundling. @throws {Error} from the build, when an operation that is called is nowhere. */
export const clientClasses: BunPlugin = {
  name: "client-node's operations",
  setup(build) {
    const called = calledOperations(readFileSync(CALLER, "utf8"));
    const kept = new Set<string>();
    const bare = new Bun.Transpiler({ loader: "js", minifyWhitespace: true });
    let isLinked = false;
    build.onLoad({ filter: GENERATED }, ({ path }) => {
      isLinked = true;
      const contents = withOperations(readFileSync(path, "utf8"), called, (name) => void kept.add(name));
      return { contents: bare.transformSync(contents), loader: "js" };
    });
    build.onLoad({ filter: PACKAGED }, ({ path }) => {
      const text = readFileSync(path, "utf8");
      return { contents: MODULE.test(text) ? bare.transformSync(text) : text, loader: "js" };
    });
    build.onEnd(() => {
      const missing = [...called].filter((name) => !kept.has(name));
      if (isLinked && missing.length > 0) throw new Error(`@kubernetes/client-node has no ${missing.join(", ")}`);
    });
  },
};
