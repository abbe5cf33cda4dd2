/**
 * The stand-in as a process of its own.
 *
 *   bun src/demo/api-server/main.ts [--port N] [--host ADDRESS] [--dir DIR]
 *                                   [--slices N] [--churn RATE]
 *
 *   --port    0 (default) takes a free one; also API_SERVER_PORT
 *   --host    127.0.0.1 by default; also API_SERVER_HOST
 *   --dir     where ca.crt, admin.kubeconfig, kubelet.kubeconfig and
 *             reader.kubeconfig (a bearer token) are written; default: a new
 *             temporary folder; also API_SERVER_DIR
 *   --slices  EndpointSlices of about 1.7 KB each; 1 by default
 *   --churn   changes a second to those slices; 0 by default
 *
 * The first line of output is JSON: {url, ca, kubeconfig, dir}. Then each line
 * of input is a command and is answered with one line of JSON:
 *
 *   cut | blackhole | heal | compact | rollback N | bookmark | end-watches
 *   status CODE [TIMES] | slow MS
 *   put KIND JSON | delete KIND NAMESPACE NAME | log [SINCE] | stat | stop
 *
 * The end of input or SIGTERM stops it.
 */

import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { startApiServer, type ApiServer } from "./api-server.ts";
import type { JsonObject } from "./schema.ts";
import { DEMO_NODE, demoSlice, demoWorld } from "./seed.ts";

const READER_TOKEN = "reader-token";

const { values: flags } = parseArgs({
  options: {
    port: { type: "string", default: process.env["API_SERVER_PORT"] ?? "0" },
    host: { type: "string", default: process.env["API_SERVER_HOST"] ?? "127.0.0.1" },
    dir: { type: "string", default: process.env["API_SERVER_DIR"] ?? "" },
    slices: { type: "string", default: "1" },
    churn: { type: "string", default: "0" },
  },
});

const api = await startApiServer({
  host: flags.host,
  port: Number(flags.port),
  objects: demoWorld(Number(flags.slices)),
  tokens: { [READER_TOKEN]: { name: "reader", groups: [] } },
});
const dir = writeCredentials(api);
const stopChurn = churn(api, Number(flags.churn), Number(flags.slices));
say({ url: api.url, ca: join(dir, "ca.crt"), kubeconfig: join(dir, "admin.kubeconfig"), dir });

process.on("SIGTERM", () => void stop());
const input = createInterface({ input: process.stdin });
input.on("line", (line) => void obey(line.trim()));
input.on("close", () => void stop());

function say(answer: unknown): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

async function stop(): Promise<void> {
  stopChurn();
  await api.stop();
  process.exit(0);
}

async function obey(line: string): Promise<void> {
  if (line === "") return;
  try {
    say({ ok: true, ...(await command(line)) });
  } catch (error) {
    say({ ok: false, error: (error as Error).message });
  }
}

type Words = readonly string[];
const numberAt = (words: Words, at: number, otherwise: number) =>
  words[at] === undefined ? otherwise : Number(words[at]);

/** What can be ordered, each with its answer. */
const ORDERS: Readonly<Record<string, (words: Words) => object | void | Promise<void>>> = {
  cut: () => api.cut(),
  blackhole: () => api.blackHole(),
  heal: () => api.heal(),
  compact() {
    api.compact();
    return { resourceVersion: api.resourceVersion };
  },
  rollback(words) {
    api.rollback(numberAt(words, 0, 1));
    return { resourceVersion: api.resourceVersion };
  },
  bookmark: () => ({ watches: api.sendBookmarks() }),
  "end-watches": () => ({ watches: api.endWatches() }),
  status: (words) => api.nextStatus({ code: numberAt(words, 0, 503) }, undefined, numberAt(words, 1, 1)),
  slow: (words) => api.slow(numberAt(words, 0, 0)),
  put: ([kind = "", ...words]) => ({ object: api.put({ kind, ...(JSON.parse(words.join(" ")) as JsonObject) }) }),
  delete: ([kind = "", namespace = "", name = ""]) => ({
    deleted: api.remove(kind, namespace === "-" ? "" : namespace, name),
  }),
  log(words) {
    const requests = api.requests
      .slice(numberAt(words, 0, 0))
      .map(({ method, target, user, status, startedAtMs, headers }) => ({
        method,
        target,
        user,
        status,
        startedAtMs,
        userAgent: headers["user-agent"],
      }));
    return { next: api.requests.length, requests };
  },
  stat() {
    const { bytesUp, bytesDown, connections, accepted } = api.link;
    const { resourceVersion, watchCount: watches, requests } = api;
    return { resourceVersion, watches, requests: requests.length, bytesUp, bytesDown, connections, accepted };
  },
  stop: () => void setTimeout(() => void stop(), 0),
};

async function command(line: string): Promise<object> {
  const [name = "", ...words] = line.split(" ");
  const order = Object.hasOwn(ORDERS, name) ? ORDERS[name] : undefined;
  if (order === undefined) throw new RangeError(`Cannot obey "${name}": no such command`);
  return (await order(words)) ?? {};
}

function writeCredentials(server: ApiServer): string {
  const folder = flags.dir || mkdtempSync(join(tmpdir(), "api-server-"));
  mkdirSync(folder, { recursive: true });
  const write = (file: string, text: string) => writeFileSync(join(folder, file), text, { mode: 0o600 });
  const kubelet = server.cluster.clientCertificate(`system:node:${DEMO_NODE}`, ["system:nodes"]);
  write("ca.crt", server.cluster.ca);
  write("kubelet.crt", kubelet.cert);
  write("kubelet.key", kubelet.key);
  write("admin.kubeconfig", server.kubeconfig({ user: "admin", groups: ["system:masters"] }));
  write("kubelet.kubeconfig", server.kubeconfig({ user: `system:node:${DEMO_NODE}`, keyPair: kubelet }));
  write("reader.kubeconfig", server.kubeconfig({ user: "reader", token: READER_TOKEN }));
  return folder;
}

/** Rewrites one slice after the other, evenly spread. */
function churn(server: ApiServer, perSecond: number, slices: number): () => void {
  if (perSecond <= 0 || slices <= 1) return () => {};
  let count = 0;
  const timer = setInterval(() => {
    const slice = demoSlice(count++ % (slices - 1));
    server.put({
      ...slice,
      metadata: { ...(slice["metadata"] as JsonObject), annotations: { "holdfast.dev/churn": String(count) } },
    });
  }, 1000 / perSecond);
  return () => clearInterval(timer);
}
