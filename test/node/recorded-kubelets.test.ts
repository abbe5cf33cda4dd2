/**
 * What stock kubelets ask, and what each of it is answered: online, while the
 * API server is gone, and after Holdfast was started anew meanwhile.
 *
 * TABLE is the specification, a row for each purpose that a kubelet has with
 * the API server. Requests are those that `test/lab/record-kubelet.ts` heard;
 * what no stock kubelet there asked stands in the row and is named in its title.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { requestInfo } from "../../src/demo/api-server/request.ts";
import { child, textAt, type JsonObject } from "../../src/demo/api-server/schema.ts";
import { recordings, type RecordedRequest, type Recording } from "../support/recorded-kubelet.ts";
import { Replay, type Outcome } from "../support/replay.ts";

/** One request through all of it. */
interface Course {
  readonly request: RecordedRequest;
  /** The bytes that were sent while cut. */
  readonly body: Buffer;
  readonly online: Outcome;
  /** What the API server itself said to a read, last before the cut. */
  readonly truth: Outcome | undefined;
  readonly cut: Outcome;
  readonly restarted: Outcome;
}

/** How a request is answered while cut; the names are those of the design. */
type Answer = (course: Course, offline: Outcome) => void;

interface Row {
  readonly row: number;
  readonly purpose: string;
  /** By verb and resource. */
  readonly answers: Readonly<Record<string, Answer>>;
  /** Sent where no recorded request asks this; plain lists follow from the streaming ones. */
  readonly byTheFacts?: Readonly<Record<string, RecordedRequest>>;
}

const NODE = "edge1";
const SHOP = "namespaces/shop";
const PROTOBUF = "application/vnd.kubernetes.protobuf";

/** As client-go asks, with a JSON body. */
function fact(method: string, target: string, body: object | string = "", status = method === "POST" ? 201 : 200) {
  const isPatch = method === "PATCH";
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return {
    method,
    target,
    headers: {
      accept: `${PROTOBUF},application/json`,
      "accept-encoding": "gzip",
      "user-agent": "kubelet/by-the-facts",
      ...(text === "" ? {} : { "content-type": `application/${isPatch ? "strategic-merge-patch+json" : "json"}` }),
    },
    body: Buffer.from(text).toString("base64"),
    status,
  };
}

const STREAM =
  "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=420";

/** Whatever is known of it: a copy answers, and what was never seen or is gone is 503. */
const kept: Answer = ({ request, truth }, offline) => {
  if (truth!.status !== 200) return refused({ request } as Course, offline);
  expect(offline.status).toBe(200);
  if (request.target.includes("resourceVersion=N")) return expect(offline.objects).toEqual([]);
  expect(sorted(offline.objects)).toEqual(sorted(truth!.objects));
};

/** 503 in the client's own format, and no word about coming back: client-go would hold its caller for ten tries. */
const refused: Answer = ({ request }, offline) => {
  expect(offline.status).toBe(503);
  expect(offline.objects[0]).toMatchObject({ kind: "Status", reason: "ServiceUnavailable", code: 503 });
  expect(offline.contentType).toBe(request.headers["accept"]!.startsWith(PROTOBUF) ? PROTOBUF : "application/json");
  expect(offline.retryAfter).toBeUndefined();
};

const exists: Answer = (_, offline) => {
  expect(offline.status).toBe(409);
  expect(offline.objects[0]).toMatchObject({ kind: "Status", reason: "AlreadyExists" });
};

/** The status shows in the object; of an object that is gone it is 503. */
const laidOver: Answer = (course, offline) => {
  if (course.online.status !== 200 || isGone(course)) return refused(course, offline);
  expect(offline.status).toBe(200);
  const [object] = offline.objects;
  expect(textAt(object, "metadata.uid")).toBe(textAt(course.online.objects[0], "metadata.uid"));
  const { status } = JSON.parse(course.body.toString("utf8")) as JsonObject;
  const plain = Object.entries(status ?? {}).filter(([, value]) => typeof value !== "object");
  expect(object!["status"]).toMatchObject(Object.fromEntries(plain));
};

const echoed: Answer = ({ request, body }, offline) => {
  expect(offline.status).toBe(request.method === "POST" ? 201 : 200);
  expect(offline.body.equals(body)).toBe(true);
};

/** Whatever the lease says, it is the node's. */
const lease: Answer = (_, offline) => {
  expect(offline.status).toBe(200);
  expect(offline.objects[0]).toMatchObject({ kind: "Lease", metadata: { name: NODE } });
};

const sameToken: Answer = ({ online }, offline) => {
  expect(offline.status).toBe(201);
  expect(textAt(offline.objects[0], "status.token")).not.toBe("");
  expect(textAt(offline.objects[0], "status.token")).toBe(textAt(online.objects[0], "status.token"));
};

const taken: Answer = ({ request }, offline) => {
  expect(offline.status).toBe(request.method === "POST" ? 201 : 200);
  expect(textAt(offline.objects[0], "kind")).toBe("Event");
};

/** A decision stands for its time, and in this process. */
const decided: Answer = (course, offline) => {
  if (offline === course.restarted) return refused(course, offline);
  expect(offline.status).toBe(201);
  expect(offline.body.equals(course.online.body)).toBe(true);
};

const SLICES = "/apis/resource.k8s.io/v1/resourceslices";
const SLICE = {
  metadata: { name: "edge1-gpu" },
  spec: {
    driver: "gpu.example.com",
    nodeName: NODE,
    pool: { name: NODE, generation: 1, resourceSliceCount: 1 },
    devices: [],
  },
};
const CERTIFICATE_REQUEST = {
  metadata: { name: "key" },
  spec: { signerName: "example.com/nobody", podName: "configured", nodeName: NODE },
};

const TABLE: readonly Row[] = [
  { row: 1, purpose: "the node lister", answers: { "list nodes": kept, "watch nodes": kept } },
  { row: 2, purpose: "services for environments", answers: { "list services": kept, "watch services": kept } },
  { row: 3, purpose: "desired pods", answers: { "list pods": kept, "watch pods": kept } },
  {
    row: 4,
    purpose: "registration",
    answers: { "create nodes": exists, "get nodes": kept, "patch nodes/status": laidOver },
  },
  { row: 5, purpose: "the node's status", answers: { "get nodes": kept, "patch nodes/status": laidOver } },
  {
    row: 6,
    purpose: "the heartbeat",
    answers: { "get leases": lease, "create leases": exists, "update leases": echoed },
  },
  {
    row: 7,
    purpose: "the CSINode gate",
    answers: { "get csinodes": kept, "create csinodes": refused, "update csinodes": refused },
    byTheFacts: {
      "update csinodes": fact("PUT", `/apis/storage.k8s.io/v1/csinodes/${NODE}`, {
        apiVersion: "storage.k8s.io/v1",
        kind: "CSINode",
        metadata: { name: NODE },
        spec: { drivers: [{ name: "disk.example.com", nodeID: NODE }] },
      }),
    },
  },
  {
    row: 8,
    purpose: "drivers and runtime classes",
    answers: {
      "list csidrivers": kept,
      "watch csidrivers": kept,
      "list runtimeclasses": kept,
      "watch runtimeclasses": kept,
    },
  },
  {
    row: 9,
    purpose: "ConfigMaps and Secrets, one by one",
    answers: { "list configmaps": kept, "watch configmaps": kept, "list secrets": kept, "watch secrets": kept },
  },
  { row: 10, purpose: "projected tokens", answers: { "create serviceaccounts/token": sameToken } },
  {
    row: 11,
    purpose: "claims, volumes, attachments",
    answers: {
      "get persistentvolumeclaims": kept,
      "get persistentvolumes": kept,
      "get volumeattachments": kept,
      "get nodes": kept,
    },
  },
  {
    row: 12,
    purpose: "pod status and final removal",
    answers: { "get pods": kept, "patch pods/status": laidOver, "delete pods": refused },
  },
  { row: 13, purpose: "mirror pods", answers: { "create pods": refused, "delete pods": refused } },
  { row: 14, purpose: "events", answers: { "create events": taken, "patch events": taken } },
  {
    row: 15,
    purpose: "who asks kubelet, and may they",
    answers: { "create tokenreviews": decided, "create subjectaccessreviews": decided },
  },
  {
    row: 16,
    purpose: "certificates of its own",
    answers: {
      "create certificatesigningrequests": refused,
      "list certificatesigningrequests": kept,
      "watch certificatesigningrequests": kept,
    },
  },
  {
    row: 17,
    purpose: "devices",
    answers: {
      "get resourceclaims": kept,
      "list resourceslices": kept,
      "watch resourceslices": kept,
      "create resourceslices": refused,
      "update resourceslices": refused,
      "delete resourceslices": refused,
      "deletecollection resourceslices": refused,
    },
    byTheFacts: {
      "list resourceslices": fact("GET", `${SLICES}?fieldSelector=spec.nodeName%3D${NODE}&limit=500&resourceVersion=0`),
      "watch resourceslices": fact("GET", `${SLICES}?fieldSelector=spec.nodeName%3D${NODE}&${STREAM}`),
      "create resourceslices": fact("POST", SLICES, {
        apiVersion: "resource.k8s.io/v1",
        kind: "ResourceSlice",
        ...SLICE,
      }),
      "update resourceslices": fact("PUT", `${SLICES}/edge1-gpu`, {
        apiVersion: "resource.k8s.io/v1",
        kind: "ResourceSlice",
        ...SLICE,
      }),
      "delete resourceslices": fact("DELETE", `${SLICES}/edge1-gpu`),
      "deletecollection resourceslices": fact("DELETE", `${SLICES}?fieldSelector=spec.nodeName%3D${NODE}`),
    },
  },
  {
    row: 18,
    purpose: "trust bundles and pod certificates",
    answers: {
      "list clustertrustbundles": kept,
      "watch clustertrustbundles": kept,
      "list podcertificaterequests": kept,
      "watch podcertificaterequests": kept,
      "create podcertificaterequests": refused,
      "get serviceaccounts": kept,
    },
    byTheFacts: {
      "list clustertrustbundles": fact(
        "GET",
        "/apis/certificates.k8s.io/v1/clustertrustbundles?limit=500&resourceVersion=0",
      ),
      "watch clustertrustbundles": fact("GET", `/apis/certificates.k8s.io/v1/clustertrustbundles?${STREAM}`),
      "list podcertificaterequests": fact(
        "GET",
        `/apis/certificates.k8s.io/v1/podcertificaterequests?fieldSelector=spec.nodeName%3D${NODE}&limit=500&resourceVersion=0`,
      ),
      "watch podcertificaterequests": fact(
        "GET",
        `/apis/certificates.k8s.io/v1/podcertificaterequests?fieldSelector=spec.nodeName%3D${NODE}&${STREAM}`,
      ),
      "create podcertificaterequests": fact("POST", `/apis/certificates.k8s.io/v1/${SHOP}/podcertificaterequests`, {
        apiVersion: "certificates.k8s.io/v1",
        kind: "PodCertificateRequest",
        ...CERTIFICATE_REQUEST,
      }),
      "get serviceaccounts": fact("GET", `/api/v1/${SHOP}/serviceaccounts/default`),
    },
  },
];

/** Finds its way in the API: no row of its own. */
const DISCOVERY: Row = { row: 0, purpose: "discovery", answers: { "get ": keptWhole } };

function keptWhole({ online }: Course, offline: Outcome): void {
  expect(offline.status).toBe(200);
  expect(offline.body.equals(online.body)).toBe(true);
}

/** "patch pods/status". */
function asked({ method, target }: RecordedRequest): string {
  const { verb, resource, subresource } = requestInfo(method, target);
  return `${verb} ${resource}${subresource === "" ? "" : `/${subresource}`}`;
}

/** What a row asks that the recording does not, by what it asks. */
function unheard({ answers, byTheFacts = {} }: Row, { requests }: Recording): [what: string, RecordedRequest[]][] {
  const heard = new Set(requests.map(asked));
  return Object.keys(answers)
    .filter((what) => !heard.has(what))
    .map((what): [string, RecordedRequest[]] => {
      const fact = byTheFacts[what];
      return [what, fact === undefined ? fallenBack(what, requests) : [fact]];
    })
    .filter(([, facts]) => facts.length > 0);
}

/** A streaming list that fails in any way is followed by a plain one, which may not come in a recording. */
function fallenBack(what: string, requests: readonly RecordedRequest[]): RecordedRequest[] {
  const streams = requests.filter((request) => asked(request).replace(/^watch /, "list ") === what);
  const targets = new Set(
    streams.map(({ target }) => {
      const { pathname, searchParams } = new URL(target, "https://api.invalid");
      const field = searchParams.get("fieldSelector");
      const selector = field === null ? "" : `fieldSelector=${encodeURIComponent(field)}&`;
      return `${pathname}?${selector}limit=500&resourceVersion=0`;
    }),
  );
  return [...targets].map((target) => ({ ...streams[0]!, target }));
}

function title(row: Row, recording: Recording): string {
  const facts = unheard(row, recording).map(([what]) => what);
  return `row ${row.row}, ${row.purpose}${facts.length === 0 ? "" : ` (by the facts: ${facts.join(", ")})`}`;
}

/** Kubelet deleted it: the API server no longer has it. */
const isGone = ({ truth }: Course) => truth?.status === 404;

/** By name, without what a status written while cut may have changed. */
function sorted(objects: readonly JsonObject[]): JsonObject[] {
  const name = (object: JsonObject) => `${textAt(object, "metadata.namespace")}/${textAt(object, "metadata.name")}`;
  return objects
    .map(({ kind: _kind, apiVersion: _apiVersion, status, ...rest }) => {
      const { resourceVersion: _, ...metadata } = child(rest, "metadata");
      const mayBeEdited = "containers" in child(rest, "spec") || "nodeInfo" in child({ status: status! }, "status");
      return { ...rest, metadata, ...(mayBeEdited || status === undefined ? {} : { status }) };
    })
    .sort((a, b) => (name(a) < name(b) ? -1 : 1));
}

/** The object that a write is about, as a read. */
function readOf({ method, target, headers }: RecordedRequest): RecordedRequest | undefined {
  if (method === "GET") return { method, target, headers, body: "", status: 200 };
  const { verb, subresource, path } = requestInfo(method, target);
  if (verb !== "patch" || subresource !== "status") return undefined;
  return { method: "GET", target: path.slice(0, -"/status".length), headers, body: "", status: 200 };
}

interface Run {
  readonly courses: readonly Course[];
  /** Watches that did not live through the cut. */
  readonly endedByCut: readonly string[];
}

/** Everything once online, once while cut, once more after a restart. */
async function run(replay: Replay): Promise<Run> {
  const { recording } = replay;
  const facts = TABLE.flatMap((row) => unheard(row, recording).flatMap(([, requests]) => requests));
  const requests = [...recording.requests, ...facts];
  const inTurn = async <T>(ask: (request: RecordedRequest) => Promise<T>) => {
    const answers: T[] = [];
    for (const request of requests) answers.push(await ask(request));
    return answers;
  };
  const online = await inTurn((request) => replay.ask(request));
  const truth = await inTurn(async (request) => {
    const read = readOf(request);
    return read === undefined ? undefined : await replay.truth(read);
  });
  await replay.cut();
  const endedByCut = requests.filter((_, i) => online[i]!.watch?.isOpen === false).map(line);
  const bodies = requests.map((request) => replay.body(request));
  const cut = await inTurn((request) => replay.ask(request));
  await replay.restart();
  const restarted = await inTurn((request) => replay.ask(request));
  const courses = requests.map((request, i) => ({
    request,
    body: bodies[i]!,
    online: online[i]!,
    truth: truth[i],
    cut: cut[i]!,
    restarted: restarted[i]!,
  }));
  return { courses, endedByCut };
}

describe.each(recordings().map((recording) => [recording.kubelet, recording] as const))(
  "kubelet %s",
  (_, recording) => {
    let replay: Replay;
    let courses: readonly Course[] = [];
    let endedByCut: readonly string[] = [];
    beforeAll(async () => {
      replay = await Replay.start(recording);
      ({ courses, endedByCut } = await run(replay));
    }, 60_000);
    afterAll(async () => await replay?.[Symbol.asyncDispose]());

    test("the recording holds no token and no Secret", () => {
      const bodies = recording.requests.map(({ body }) => Buffer.from(body, "base64").toString("latin1"));
      expect(JSON.stringify(recording) + bodies.join("\n")).not.toMatch(/eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}/);
      const secrets = recording.objects.filter(({ kind }) => kind === "Secret");
      expect(new Set(secrets.flatMap(({ data }) => Object.values(data as object)))).toEqual(
        new Set([btoa("replaced")]),
      );
    });

    test("every recorded request belongs to a row", () => {
      const rows = new Set([...TABLE, DISCOVERY].flatMap(({ answers }) => Object.keys(answers)));
      expect(recording.requests.map(asked).filter((what) => !rows.has(what))).toEqual([]);
    });

    test("online, each is answered as the API server answered then", () => {
      const differing = courses.filter(({ request, online }) => classOf(request.status) !== classOf(online.status));
      expect(
        differing.map(({ request, online }) => `${line(request)}: ${request.status}, now ${online.status}`),
      ).toEqual([]);
    });

    test("the cut ends no watch", () => {
      expect(courses.filter(({ online }) => online.watch !== undefined)).not.toEqual([]);
      expect(endedByCut).toEqual([]);
    });

    test.each([...TABLE, DISCOVERY].map((row) => [title(row, recording), row] as const))("%s", (_title, row) => {
      const ofRow = courses.filter(({ request }) => row.answers[asked(request)] !== undefined);
      if (row !== DISCOVERY) expect(ofRow).not.toEqual([]);
      for (const course of ofRow) {
        for (const when of ["cut", "restarted"] as const) {
          try {
            row.answers[asked(course.request)]!(course, course[when]);
          } catch (cause) {
            throw new Error(`${line(course.request)}, ${when}: ${(cause as Error).message}`, { cause });
          }
        }
      }
    });
  },
);

const classOf = (status: number) => Math.floor(status / 100);
const line = ({ method, target }: RecordedRequest) => `${method} ${target}`;
