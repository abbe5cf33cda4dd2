/**
 * What must not stand in the node's code, each with its reason.
 */

import type { Problem, SourceFile } from "./report.ts";

interface Rule {
  readonly pattern: RegExp;
  /** Paths the rule does not hold for. */
  readonly except?: RegExp;
  readonly problem: string;
  readonly remedy: string;
}

const RULES: readonly Rule[] = [
  { pattern: /from "bun:ffi"|import\("bun:ffi"\)/, problem: "uses bun:ffi", remedy: "it refuses to work without the JIT, which the small profile switches off" },
  { pattern: /\bhttp2\.connect\(/, problem: "uses the node:http2 client", remedy: "it ends truncated bodies as if they were complete; use fetch" },
  { pattern: /^import (?!type )[^;]*from "@kubernetes\/client-node"/m, problem: "imports @kubernetes/client-node at run time", remedy: "import type only: it costs 45 MB and does not pass CA and certificate" },
  { pattern: /from "bun:sqlite"/, except: /^src\/store\//, problem: "uses SQL outside src/store", remedy: "add a method to src/store/contract.ts" },
  { pattern: /\bBun\.serve\(/, except: /^src\/(health|demo)\//, problem: "uses Bun.serve on the data path", remedy: "it holds heads back and hides client certificates; see src/proxy/listen.ts" },
  { pattern: /rejectUnauthorized: false/, except: /^src\/(proxy\/listen\.ts|demo\/)/, problem: "switches certificate checks off", remedy: "nothing is asked of a server that cannot be verified" },
  { pattern: /\bcheckServerIdentity\b/, problem: "replaces the check of a server's name", remedy: "use serverName" },
  { pattern: /\b(?:TODO|FIXME|XXX)\b/, problem: "holds unfinished work", remedy: "file an issue" },
];
const BAD_NAMES = /(?:^|[/-])(?:utils?|helpers?|managers?|misc|common)\.ts$/;

/** Finds forbidden uses and names that name nothing. */
export function forbiddenUses(files: readonly SourceFile[]): Problem[] {
  return files.flatMap(({ path, text }) => {
    const found: Problem[] = RULES.filter(({ pattern, except }) => pattern.test(text) && except?.test(path) !== true).map(({ problem, remedy }) => ({ file: path, problem, remedy }));
    if (BAD_NAMES.test(path)) found.push({ file: path, problem: "has a name that names nothing", remedy: "name what it decides" });
    if (!/^[a-z0-9./-]+$/.test(path)) found.push({ file: path, problem: "is not in kebab-case", remedy: "rename it" });
    return found;
  });
}
