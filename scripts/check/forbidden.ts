/**
 * What must not stand in the repository, each with its reason.
 */

import type { Problem, SourceFile } from "./report.ts";

interface Rule {
  readonly pattern: RegExp;
  /** Paths the rule holds for. */
  readonly within: RegExp;
  /** Paths among them it does not hold for. */
  readonly except?: RegExp;
  readonly problem: string;
  readonly remedy: string;
}

const SOURCE = /^src\//;
const CODE = /\.(?:ts|sh)$/;
const DOCUMENT = /\.md$/;
/** What a node never runs all the time: the cloud's parts, and commands other than `run`. They may load more, when asked. */
const OFF_THE_NODE = /^src\/(?:guard|gateway|manifests)\/|^src\/cli\/(?!run\.ts$)/;
/** The words that begin a statement, in the capitals in which this project writes them. */
const SQL =
  /\b(?:SELECT\s[^;]{1,200}?\sFROM\s|INSERT\s(?:OR\s\w+\s)?INTO\s|UPDATE\s\w+\sSET\s|DELETE\sFROM\s|CREATE\s(?:TABLE|INDEX)\s|PRAGMA\s\w)/;

const RULES: readonly Rule[] = [
  {
    pattern: /(?:from|import|import\(|require\() ?"bun:ffi"/,
    within: SOURCE,
    problem: "uses bun:ffi",
    remedy: "it refuses to work without the JIT, which the small profile switches off",
  },
  {
    pattern: /\bhttp2\.connect\(|import \{[^}]*\bconnect\b[^}]*\} from "(?:node:)?http2"/,
    within: SOURCE,
    problem: "uses the node:http2 client",
    remedy: "it ends truncated bodies as if they were complete; use fetch",
  },
  {
    pattern: /^import (?!type )[^;]*"@kubernetes\/client-node[^"]*"/m,
    within: SOURCE,
    problem: "imports @kubernetes/client-node at run time",
    remedy: "import type only: it costs 17 MB and does not pass CA and certificate",
  },
  {
    pattern: /\b(?:import|require)\("@kubernetes\/client-node/,
    within: SOURCE,
    except: OFF_THE_NODE,
    problem: "loads @kubernetes/client-node on the node",
    remedy: "import type only: it costs 17 MB and does not pass CA and certificate",
  },
  {
    pattern: /"bun:sqlite"/,
    within: SOURCE,
    except: /^src\/store\//,
    problem: "opens a database outside src/store",
    remedy: "add a method to src/store/contract.ts",
  },
  {
    pattern: SQL,
    within: SOURCE,
    except: /^src\/store\//,
    problem: "holds SQL outside src/store",
    remedy: "add a method to src/store/contract.ts",
  },
  {
    pattern: /\bBun\.serve\(/,
    within: SOURCE,
    except: /^src\/(?:health|demo)\/|^src\/guard\/webhook\.ts$/,
    problem: "uses Bun.serve on the data path",
    remedy: "it holds heads back and hides client certificates; see src/front/listen.ts",
  },
  {
    pattern: /\blisten\(\{[^}]*\bfd\b/,
    within: SOURCE,
    problem: "listens on a file descriptor",
    remedy: "Bun opens a random port on every interface instead; listen on an address",
  },
  {
    pattern: /\brejectUnauthorized: false/,
    within: SOURCE,
    // cluster-info proves who answers by a signature, a pin and a second question.
    except: /^src\/(front\/listen\.ts|gateway\/agents\.ts|machine\/cluster-info\.ts|demo\/)/,
    problem: "switches certificate checks off",
    remedy: "nothing is asked of a server that cannot be verified",
  },
  {
    pattern: /\bcheckServerIdentity\b/,
    within: SOURCE,
    problem: "replaces the check of a server's name",
    remedy: "use serverName",
  },
  {
    pattern: /^export \* from/m,
    within: SOURCE,
    problem: "re-exports a whole file",
    remedy: "import the file that defines a name",
  },
  {
    pattern: /\b(?:TODO|FIXME|XXX)\b/,
    within: CODE,
    except: /^(?:scripts\/check\/|test\/scripts\/)/,
    problem: "holds unfinished work",
    remedy: "file an issue",
  },
  {
    pattern: /\.(?:ts|js|sh|json|toml|yaml|go):\d+\b|#L\d+\b|\blines? \d+\b/i,
    within: DOCUMENT,
    problem: "names a line number",
    remedy: "name the file and what stands there: lines move",
  },
];
const NAMES_NOTHING = /(?:^|[/-])(?:utils?|helpers?|managers?|misc|common)(?:\.test)?\.ts$/;

/** Finds forbidden uses, and files whose names name nothing. */
export function forbiddenUses(files: readonly SourceFile[]): Problem[] {
  return files.flatMap(({ path, text }) => [
    ...RULES.filter((rule) => isBroken(rule, path, text)).map(({ problem, remedy }) => ({
      file: path,
      problem,
      remedy,
    })),
    ...(path.endsWith(".ts") ? wrongName(path) : []),
  ]);
}

function isBroken({ pattern, within, except }: Rule, path: string, text: string): boolean {
  return within.test(path) && except?.test(path) !== true && pattern.test(text);
}

function wrongName(path: string): Problem[] {
  const found: Problem[] = [];
  if (NAMES_NOTHING.test(path)) {
    found.push({ file: path, problem: "has a name that names nothing", remedy: "name what it decides" });
  }
  if (!/^[a-z0-9./-]+$/.test(path)) found.push({ file: path, problem: "is not in kebab-case", remedy: "rename it" });
  if (SOURCE.test(path) && path.endsWith("/index.ts")) {
    found.push({ file: path, problem: "is an index", remedy: "import the file that defines a name" });
  }
  return found;
}
