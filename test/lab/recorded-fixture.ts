/**
 * From everything a kubelet asked to a fixture: of equal requests a few, and
 * nothing that chance, the machine or a credential gave.
 *
 * Replacements have the length of what they replace, and the same thing is
 * replaced by the same everywhere: lengths in protobuf stay true, and a UID in a
 * request's body is still that of an object.
 */
import { writeFileSync } from "node:fs";
import { type KubeObject, type RecordedRequest, type Recording, recordingText } from "../support/recorded-kubelet.ts";
import { NAMESPACE, SECRET_TEXT } from "./workload.ts";

const MAX_FIXTURE_BYTES = 110_000;
/** Equal but for their bodies. */
const KEPT_OF_EACH = 2;
/** Of all pods together: each writes much the same. */
const KEPT_POD_STATUSES = 8;

/** What the machine and the run gave, to be replaced. */
export interface RunNames {
  readonly directory: string;
  readonly kernel: string;
  readonly tokens: readonly string[];
}

/** What has no meaning beyond its run, and how many characters of it. */
const RANDOM: readonly RegExp[] = [
  /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g,
  // Containers and images by digest, names derived from one.
  /[0-9a-f]{64}/g,
  // Events are named by the nanosecond.
  /(?<=\.)[0-9a-f]{16}/g,
  // The control plane's own trust bundle, by its content.
  /(?<=kube-apiserver-serving:)[0-9a-f]{24}/g,
  /(?<=kube-api-access-|once-|csr-)[a-z0-9]{5}/g,
];

/** Of equal requests the first ones; without those that a moment's disorder in the control plane refused. */
export function thinned(requests: readonly RecordedRequest[]): RecordedRequest[] {
  const plain = requests
    .filter(({ status }) => status !== 403 && status !== 429 && status < 500)
    .map((request) => ({ ...request, target: settled(request.target) }));
  const patchedEvents = new Set(plain.filter(isEventPatch).map(({ target }) => target.split("/").at(-1)!));
  const seen = new Map<string, Set<string>>();
  return plain.filter((request) => {
    const { method, target, status, body, headers } = request;
    const kind = target.replace(/\/events\/.*/, "/events/").replace(/\/pods\/[^/]+\/status/, "/pods/status");
    const key = `${method} ${kind} ${status} ${headers["content-type"]}`;
    const most = kind.endsWith("/pods/status") ? KEPT_POD_STATUSES : KEPT_OF_EACH;
    const bodies = seen.get(key) ?? new Set();
    seen.set(key, bodies);
    const isPatchedLater =
      method === "POST" && [...patchedEvents].some((name) => Buffer.from(body, "base64").includes(name));
    if (bodies.has(body) || (bodies.size >= most && !isPatchedLater)) return false;
    bodies.add(body);
    return true;
  });
}

const isEventPatch = ({ method, target }: RecordedRequest) => method === "PATCH" && target.includes("/events/");

/** The target without what a kubelet draws or counts. */
function settled(target: string): string {
  return target
    .replace(/(?<=[?&]resourceVersion=)[1-9][0-9]*/, "N")
    .replace(/(?<=[?&]timeoutSeconds=)[0-9]+/, "420")
    .replace(/(?<=[?&]timeout=)[0-9]+m[0-9]+s/, "7m0s");
}

/** The recording with nothing of its run in it. @throws {Error} where something of it is left. */
export function anonymous(recording: Recording, run: RunNames): Recording {
  const replace = replacer(run, recording.objects);
  const inText = <T>(value: T): T => JSON.parse(replace(JSON.stringify(value))) as T;
  const inBody = (body: string) => Buffer.from(replace(Buffer.from(body, "base64").toString("latin1")), "latin1");
  const clean: Recording = {
    ...recording,
    objects: recording.objects.filter(isOfTheNode).map((object) => inText(withoutSecret(object))),
    requests: recording.requests.map((request) => ({
      ...inText({ ...request, body: "" }),
      body: inBody(request.body).toString("base64"),
    })),
  };
  const all = JSON.stringify(clean) + clean.requests.map(({ body }) => Buffer.from(body, "base64").toString("latin1"));
  for (const trace of [run.directory, run.kernel, ...run.tokens, SECRET_TEXT, btoa(SECRET_TEXT)])
    if (all.includes(trace)) throw new Error("Cannot write the fixture: something of the machine or a secret is left");
  if (/eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}/.test(all)) throw new Error("Cannot write the fixture: it holds a token");
  return clean;
}

function replacer(run: RunNames, objects: readonly KubeObject[]): (text: string) => string {
  const given = new Map<string, string>();
  const numbered = (value: string) => {
    const known = given.get(value);
    if (known !== undefined) return known;
    const isUuid = value.length === 36;
    const digits = String(given.size + 1).padStart(isUuid ? 12 : value.length, "0");
    const made = isUuid ? `00000000-0000-4000-8000-${digits}` : digits.slice(-value.length);
    given.set(value, made);
    return made;
  };
  const node = objects.find(({ kind }) => kind === "Node") as
    { readonly status?: { readonly nodeInfo?: Readonly<Record<string, string>> } } | undefined;
  const { machineID = "", systemUUID = "", bootID = "" } = node?.status?.nodeInfo ?? {};
  const fixed: [string, string][] = [
    ...run.tokens.map((token): [string, string] => [token, filled("no-token-", token)]),
    [run.directory, filled("/var/lib/lab-", run.directory)],
    [run.kernel, filled("6.1.0-", run.kernel)],
    ...[machineID, systemUUID, bootID].filter((id) => id !== "").map((id): [string, string] => [id, filled("", id)]),
  ];
  return (text) => {
    const known = fixed.reduce((all, [from, to]) => all.replaceAll(from, to), text);
    return RANDOM.reduce((all, pattern) => all.replace(pattern, numbered), known);
  };
}

const filled = (start: string, like: string) => start.padEnd(like.length, "x").slice(0, like.length);

/** What a kubelet can see: the rest of the cluster is none of its business. */
function isOfTheNode({ metadata }: KubeObject): boolean {
  return metadata.namespace === undefined || metadata.namespace === NAMESPACE || metadata.name === "kubernetes";
}

function withoutSecret(object: KubeObject): KubeObject {
  if (object.kind !== "Secret") return object;
  const data = object["data"] as Readonly<Record<string, string>> | undefined;
  return {
    ...object,
    data: Object.fromEntries(Object.keys(data ?? {}).map((name) => [name, btoa("replaced")])),
    metadata: { ...object.metadata, annotations: {} },
  };
}

/** Writes the fixture. @throws {RangeError} where it has become too large to keep. */
export function writeFixture(path: string, recording: Recording): void {
  const text = recordingText(recording);
  if (text.length > MAX_FIXTURE_BYTES)
    throw new RangeError(`Cannot write ${path}: ${text.length} bytes are more than a fixture should have`);
  writeFileSync(path, text);
  const { objects, requests } = recording;
  console.log(`lab: wrote ${path}: ${objects.length} objects, ${requests.length} requests, ${text.length} bytes`);
}
