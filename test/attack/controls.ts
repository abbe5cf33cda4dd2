/**
 * Each attack's control, and what is left of it when the control is taken out.
 *
 *   bun test/attack/controls.ts [WORDS OF A TITLE]
 *
 * A test that passes without its control proves nothing. So for each of them
 * a copy of the program without the control is made and run, and the test must
 * fail. It takes ten minutes, and is run by hand when a test or a control has
 * changed; that the texts below still stand in src is looked at in every run
 * of `test/scripts/faults.test.ts`.
 */

import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A test and the control that it is about. */
export interface Control {
  /** In test/attack, without ".test.ts". */
  readonly file: string;
  /** Part of the test's title, found once. */
  readonly title: string;
  /** What is taken out, in words. */
  readonly control: string;
  readonly edits: readonly Edit[];
}

interface Edit {
  /** In src. */
  readonly file: string;
  /** Stands there once. */
  readonly text: string;
  readonly by: string;
}

const FIRST_CALLER = `{ principal: "certificate:system:node:edge-1|system:nodes", credential: upstreamCredential("own", this.parts.own), isOwn: true, isVouched: true, nodeName: "edge-1", isImpersonating }`;

/** All of them. */
export const CONTROLS: readonly Control[] = [
  {
    file: "stranger",
    title: "gets 401 on every path",
    control: "no credential is nobody",
    edits: [
      {
        file: "callers/identify.ts",
        text: "    throw unauthorized();\n  }\n\n  /** The certificates",
        by: `    return ${FIRST_CALLER};\n  }\n\n  /** The certificates`,
      },
    ],
  },
  {
    file: "stranger",
    title: "with a certificate of a CA of its own is nobody",
    control: "a trusted CA has signed",
    edits: [
      {
        file: "callers/identify.ts",
        text: "if (!socket.authorized && !isTimeless && !this.#hasEndedInTheCut(socket)) return undefined;",
        by: "",
      },
    ],
  },
  {
    file: "stranger",
    title: "leaves no scope, no commit and no line",
    control: "a caller counts once the API server has said yes to it",
    edits: [
      {
        file: "callers/gate.ts",
        text: "const isStranger = !caller.isVouched && !this.#admitted.has(caller.principal);",
        by: "const isStranger = false;",
      },
    ],
  },
  {
    file: "stranger",
    title: "reads no key and no socket",
    control: "the state folder is root's",
    edits: [
      {
        file: "store/seal.ts",
        text: "writeFileAtomically(path, this.#master, 0o600);",
        by: "writeFileAtomically(path, this.#master, 0o644);",
      },
    ],
  },
  {
    file: "stranger",
    title: "that takes two thousand connections",
    control: "idle connections of strangers give way, and some are kept for known clients",
    edits: [
      {
        file: "front/listen.ts",
        text: "      if (connections.size >= MAX_CONNECTIONS) makeRoom(connections);\n      if (connections.size >= MAX_CONNECTIONS + RESERVED_CONNECTIONS) {",
        by: "      if (connections.size >= MAX_CONNECTIONS) {",
      },
    ],
  },
  {
    file: "pod",
    title: "reads nothing of what kubelet has read",
    control: "copies belong to their caller",
    edits: [
      {
        file: "callers/identify.ts",
        text: "      principal: account ?? credential.id,",
        by: '      principal: "certificate:system:node:edge-1|system:nodes",',
      },
    ],
  },
  {
    file: "pod",
    title: "whose token the API server refused reads nothing while cut",
    control: "a refused token is remembered",
    edits: [
      { file: "callers/identify.ts", text: "if (this.parts.isRefused(credential.id)) throw unauthorized();", by: "" },
    ],
  },
  {
    file: "pod",
    title: "whose right was taken is answered from no copy",
    control: "a yes counts for ten seconds",
    edits: [{ file: "callers/fresh-rights.ts", text: "const FRESH_MS = 10_000;", by: "const FRESH_MS = 600_000;" }],
  },
  {
    file: "pod",
    title: "that may read Secrets gets them online from the API server each time",
    control: "Secrets come from a copy to the node alone, and end",
    edits: [
      {
        file: "callers/fresh-rights.ts",
        text: 'return group === "" && resource === "secrets";',
        by: "return group === resource;",
      },
      {
        file: "front/secrets.ts",
        text: 'if (group !== "" || resource !== "secrets") return;',
        by: 'if (group !== "" || resource !== "nothing") return;',
      },
    ],
  },
  {
    file: "pod",
    title: "refused by a plain path is refused by every spelling",
    control: "a path has one spelling",
    edits: [
      { file: "front/request-info.ts", text: "canonicalPath: spelled(path, segments)", by: "canonicalPath: path" },
    ],
  },
  {
    file: "pod",
    title: "writes no event while cut into a namespace that is not its own",
    control: "an event is taken where its writer was allowed one",
    edits: [
      {
        file: "node/event-writes.ts",
        text: "caller.nodeName !== undefined || rights.has(caller.principal, right)",
        by: "true",
      },
    ],
  },
  {
    file: "pod",
    title: "is not taken for whom it impersonates while cut",
    control: "who impersonates is answered from no copy",
    edits: [
      { file: "callers/identify.ts", text: 'if (lower.startsWith("impersonate-")) isImpersonating = true;', by: "" },
    ],
  },
  {
    file: "pod",
    title: "smuggles no request behind another",
    control: "a length beside chunks is refused",
    edits: [
      {
        file: "http1/request-head.ts",
        text: 'if (rest.isChunked && rest.length >= 0) throw new HeadError(400, "both Content-Length and Transfer-Encoding");',
        by: "",
      },
    ],
  },
  {
    file: "pod",
    title: "that asks with ever new selectors is kept for a few of them",
    control: "of one collection a few selections are followed",
    edits: [
      {
        file: "cache/followed.ts",
        text: "if (isSelection(identity) && !hasRoomForSelection(ofResource)) return false;",
        by: "",
      },
    ],
  },
  {
    file: "neighbour",
    title: "who asks for the metrics of a thousand copies",
    control: "a report is made a fifth of the time at most",
    edits: [{ file: "health/health.ts", text: "if (beganMs < freshUntilMs) return made;", by: "" }],
  },
  {
    file: "neighbour",
    title: "by another name than ours",
    control: "Host is on a list",
    edits: [
      {
        file: "front/connection.ts",
        text: 'if (head.minor === 1 && !this.parts.isOurHost(head.block.byName.get("host")!))',
        by: "if (head.minor === 7)",
      },
    ],
  },
  {
    file: "neighbour",
    title: "finds no open port on the node's address",
    control: "the listener is loopback's",
    edits: [
      {
        file: "front/listen.ts",
        text: "Bun.listen<Connection>({ hostname: host,",
        by: 'Bun.listen<Connection>({ hostname: host && "0.0.0.0",',
      },
    ],
  },
  {
    file: "neighbour",
    title: "who speaks no TLS gets no byte",
    control: "TLS alone",
    edits: [
      {
        file: "front/listen.ts",
        text: "exclusive: true, tls: tls as Bun.TLSOptions, socket }",
        by: "exclusive: true, ...(tls === undefined ? { tls } : {}), socket }",
      },
      {
        file: "front/listen.ts",
        text: "      connections.add(socket.data);",
        by: "      connections.add(socket.data);\n      socket.data.secured(peerOf(socket, null));",
      },
    ],
  },
  {
    file: "neighbour",
    title: "health and metrics name no object",
    control: "metrics count callers, and do not name them",
    edits: [
      {
        file: "health/health.ts",
        text: "return context.body(scrape(), 200,",
        by: "return context.body(`${scrape()}# serviceaccount: web-0\\n`, 200,",
      },
    ],
  },
  {
    file: "upstream",
    title: "with another CA's certificate sees no request",
    control: "the cluster's CA must have signed",
    edits: [
      {
        file: "uplink/secure-socket.ts",
        text: "      rejectUnauthorized: true,",
        by: "      rejectUnauthorized: false,",
      },
      {
        file: "uplink/pool.ts",
        text: "if (isDone && error === null) {",
        by: "if (isDone) {",
      },
    ],
  },
  {
    file: "upstream",
    title: "that redirects sends nobody anywhere",
    control: "a redirect is no answer",
    edits: [
      {
        file: "kube/whose-word.ts",
        text: 'if (status >= 300 && status < 400) return mayRedirect(asked) ? passed : "foreign";',
        by: 'if (status >= 300 && status < 400) return "unsaid";',
      },
    ],
  },
  ...["a login page", "an empty list of something else", "a plain 404", "a plain 401"].map((title) => ({
    file: "upstream",
    title,
    control: "only the API server's word counts",
    edits: [
      {
        file: "kube/whose-word.ts",
        text: 'const passed: Word = isSigned ? "unsaid" : "foreign";',
        by: 'const passed: Word = status < 300 ? "answer" : status === 404 || status === 401 ? "refusal" : "unsaid";',
      },
    ],
  })),
  {
    file: "upstream",
    title: "whose half a megabyte unfolds to five hundred",
    control: "unfolded bytes are let go piece by piece, up to a bound",
    edits: [
      {
        file: "cache/list-adoption.ts",
        text: "if (this.#writer.itemCount > scopeMaxItems || this.#writer.itemBytes > scopeMaxBytes) this.abort();",
        by: "void [scopeMaxItems, scopeMaxBytes];",
      },
      {
        file: "front/taps.ts",
        text: "        if (!adoption.isReading) this.#stopUnfolding();",
        by: "        ((globalThis as any).held ??= []).push(bytes);",
      },
    ],
  },
  {
    file: "upstream",
    title: "is not dialled with verification switched off",
    control: "such an environment ends the start",
    edits: [{ file: "main.ts", text: "    refuseDangerous(process.env);\n", by: "" }],
  },
  {
    file: "thief",
    title: "finds no Secret's text and no token in any file",
    control: "Secrets and tokens are sealed",
    edits: [
      {
        file: "store/packing.ts",
        text: "return sealer === undefined ? { packing, value }",
        by: "return sealer === undefined || true ? { packing, value }",
      },
    ],
  },
  {
    file: "thief",
    title: "without the credential Holdfast itself shows no Secret",
    control: "the key lies elsewhere",
    edits: [
      {
        file: "store/seal.ts",
        text: 'if (key !== undefined) return new Sealer(key, "credential");',
        by: 'if (key !== undefined) { writeFileAtomically(keyPath(stateDir), key, 0o600); return new Sealer(key, "credential"); }',
      },
    ],
  },
  {
    file: "thief",
    title: "a row that was given another caller's name",
    control: "a row's sum covers its caller, keyed",
    edits: [
      {
        file: "store/seal.ts",
        text: "return hasher.update(`${row.length}\\n${row}`).update(value).digest().readInt32BE(0);",
        by: "return hasher.update(value.subarray(0, 0)).digest().readInt32BE(0);",
      },
    ],
  },
  {
    file: "thief",
    title: "at an API server of the thief's own",
    control: "the state belongs to one cluster",
    edits: [
      {
        file: "store/clusters.ts",
        text: "return one.some((fingerprint) => other.includes(fingerprint));",
        by: "return one.length > 0 || other.length > 0;",
      },
    ],
  },
  {
    file: "node",
    title: "gets nothing of another node's copies",
    control: "our credential is for our own subject",
    edits: [
      { file: "callers/identify.ts", text: "    if (!this.#isSubjectOf(own, subject)) return undefined;", by: "" },
    ],
  },
  {
    file: "node",
    title: "may call itself what it likes",
    control: "who impersonates is answered from no copy",
    edits: [
      { file: "callers/identify.ts", text: 'if (lower.startsWith("impersonate-")) isImpersonating = true;', by: "" },
    ],
  },
  {
    file: "node",
    title: "writes while cut about itself alone",
    control: "a lease is the node's own",
    edits: [
      {
        file: "front/node-write.ts",
        text: '(name === nodeName && (verb === "get" || verb === "update"))',
        by: '(verb === "get" || verb === "update")',
      },
    ],
  },
];

const SRC = join(import.meta.dir, "..", "..", "src");

/** Texts that do not stand in src once. */
export function lostControls(): string[] {
  return CONTROLS.flatMap(({ title, edits }) =>
    edits
      .filter(({ file, text }) => readFileSync(join(SRC, file), "utf8").split(text).length !== 2)
      .map(({ file, text }) => `${title}: src/${file} has not once "${text.slice(0, 80)}"`),
  );
}

/** Runs one test on the program without its control. @returns what is wrong; undefined when the test failed, as it must. */
function problemOf({ file, title, edits }: Control): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-control-"));
  try {
    const root = join(SRC, "..");
    for (const name of ["node_modules", "package.json", "tsconfig.json"])
      symlinkSync(join(root, name), join(folder, name));
    cpSync(SRC, join(folder, "src"), { recursive: true });
    for (const { file: path, text, by } of edits) {
      const before = readFileSync(join(folder, "src", path), "utf8");
      writeFileSync(
        join(folder, "src", path),
        before.replace(text, () => by),
      );
    }
    const program = join(folder, "holdfast");
    writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${join(folder, "src", "main.ts")}" "$@"\n`);
    chmodSync(program, 0o755);
    // What does not start fails every test.
    if (Bun.spawnSync([program, "version"]).exitCode !== 0) return "the program does not start without it";
    const pattern = title.replaceAll(/[^A-Za-z0-9 ]/g, ".");
    const args = ["test", "--timeout", "90000", join("test", "attack", `${file}.test.ts`), "-t", pattern];
    const env = { ...process.env, HOLDFAST_BINARY: program, NO_COLOR: "1" };
    const text = Bun.spawnSync([process.execPath, ...args], { cwd: root, env }).stderr.toString();
    const [, failed = "0"] = /(\d+) fail/.exec(text) ?? [];
    const [, passed = "0"] = /(\d+) pass/.exec(text) ?? [];
    if (failed === "0") return passed === "0" ? "no test has this title" : "the test passes without it";
    if (text.includes("timed out after 90000ms")) return "the test never ended";
    // For whoever reads: it must be this, and not something else that broke.
    const said = text.split("\n").filter((line) => /^error: |^Expected|^Received|^ +at .*attack/.test(line));
    console.log(said.map((line) => `      ${line.trim().slice(0, 160)}`).join("\n"));
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const words = process.argv.slice(2).join(" ");
  let bad = 0;
  for (const control of CONTROLS) {
    if (!control.title.includes(words)) continue;
    const problem = problemOf(control);
    if (problem !== undefined) bad++;
    console.log(
      `${problem === undefined ? "ok  " : "BAD "} ${control.file}: ${control.title}: without "${control.control}" ${problem ?? "it fails"}`,
    );
  }
  process.exit(bad === 0 ? 0 : 1);
}
