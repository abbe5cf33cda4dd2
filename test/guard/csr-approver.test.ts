/**
 * Which certificate requests are approved, and everything an attacker may try instead.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { readCertificateRequest } from "../../src/certificates/certificate-request.ts";
import { ApiError } from "../../src/guard/api.ts";
import { CsrApprover } from "../../src/guard/csr-approver.ts";
import { PENDING_REASONS, SIGNERS } from "../../src/guard/csr-rules.ts";
import { Happenings } from "../../src/guard/happenings.ts";
import { nameAttribute, sequence } from "../../src/certificates/der.ts";
import {
  CN,
  dns,
  ecKeys,
  email,
  extension,
  ip,
  mintRequest,
  nodeSubject,
  O,
  rsaKeys,
  uri,
  type RequestParts,
} from "../certificates/requests.ts";
import { ManualClock } from "../support/model.ts";
import { MemoryApi } from "./support.ts";

const REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const NODE = { username: "system:node:gw-1", groups: ["system:nodes", "system:authenticated"] };
const TOKEN = {
  username: "system:bootstrap:abcdef",
  groups: ["system:bootstrappers", "system:bootstrappers:holdfast:gw-1", "system:authenticated"],
};
const CLIENT = ["digital signature", "client auth"];
const SERVING = ["digital signature", "server auth"];

interface Asked {
  readonly parts?: RequestParts;
  readonly pem?: string;
  readonly signerName?: string;
  readonly username?: string;
  readonly groups?: readonly string[];
  readonly usages?: readonly string[];
  readonly expirationSeconds?: number;
  readonly status?: object;
}

let api: MemoryApi;
let clock: ManualClock;
let metrics: Metrics;
let approver: CsrApprover;

beforeEach(() => {
  api = new MemoryApi();
  clock = new ManualClock();
  begin();
  const addresses = [
    { type: "InternalIP", address: "192.168.1.7" },
    { type: "InternalIP", address: "fd00::7" },
    { type: "Hostname", address: "gw-1" },
    { type: "ExternalIP", address: "10.96.0.1" },
    { type: "InternalIP", address: "192.168.1.100" },
    { type: "Hostname", address: "kubernetes.default.svc" },
  ];
  api.put("/api/v1/nodes/gw-1", { metadata: { labels: {} }, status: { addresses } });
  api.put("/api/v1/namespaces/default/services/kubernetes", { spec: { clusterIPs: ["10.96.0.1"] } });
  api.put("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes", {
    endpoints: [{ addresses: ["192.168.1.100"] }],
  });
});

function begin(): void {
  metrics = new Metrics();
  const signal = new AbortController().signal;
  const happenings = new Happenings({
    api,
    clock,
    log: silentLog,
    signal,
    instance: "test",
    dropped: metrics.counter("dropped_total", ""),
  });
  void happenings.run();
  approver = new CsrApprover({ client: api, clock, log: silentLog, metrics, happenings, read: readCertificateRequest });
}

function ask(name: string, asked: Asked): void {
  const { parts = {}, pem = mintRequest(parts), signerName = SIGNERS.client, usages = CLIENT, status = {} } = asked;
  const { username = NODE.username, groups = NODE.groups, expirationSeconds } = asked;
  api.put(`${REQUESTS}/${name}`, {
    metadata: { uid: `uid-${name}` },
    spec: {
      request: btoa(pem),
      signerName,
      username,
      groups,
      usages,
      ...(expirationSeconds === undefined ? {} : { expirationSeconds }),
    },
    status,
  });
}

function isApproved(name: string): boolean {
  const { status } = api.objects.get(`${REQUESTS}/${name}`) as { status?: { conditions?: { type: string }[] } };
  return status?.conditions?.some(({ type }) => type === "Approved") ?? false;
}

const left = (reason: string) => metrics.text().includes(`holdfast_guard_csr_left_total{reason="${reason}"} `);
const serving = (names: readonly Buffer[], more: Asked = {}): Asked => ({
  parts: { names },
  signerName: SIGNERS.serving,
  usages: SERVING,
  ...more,
});

async function judged(asked: Asked): Promise<boolean> {
  ask("one", asked);
  await approver.round();
  return isApproved("one");
}

const FIT: [string, Asked][] = [
  ["a node renews its own identity", {}],
  ["a node joins with a token bound to it", TOKEN],
  ["a day's life", { expirationSeconds: 86_400 }],
  ["an RSA key that may encrypt", { parts: { keys: rsaKeys() }, usages: [...CLIENT, "key encipherment"] }],
  ["its addresses and its name", serving([ip(192, 168, 1, 7), dns("gw-1")])],
  ["its IPv6 address", serving([ip(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7)])],
];

const UNFIT: [string, Asked, (typeof PENDING_REASONS)[number]][] = [
  ["another node's name", { parts: { subject: nodeSubject("gw-2") } }, "requester"],
  ["a token of another node", { ...TOKEN, parts: { subject: nodeSubject("gw-2") } }, "requester"],
  ["a token without the binding", { ...TOKEN, groups: ["system:bootstrappers"] }, "requester"],
  [
    "a lookalike group",
    { ...TOKEN, groups: ["system:bootstrappers", "system:bootstrappers:holdfast:gw-11"] },
    "requester",
  ],
  ["a user who calls himself a token", { ...TOKEN, username: "system:bootstrap:abcdef:x" }, "requester"],
  ["a service account", { username: "system:serviceaccount:default:gw-1" }, "requester"],
  ["a node that is in no group", { groups: ["system:authenticated"] }, "requester"],
  [
    "an administrator's group too",
    {
      parts: {
        subject: sequence(
          nameAttribute(O, "system:nodes"),
          nameAttribute(O, "system:masters"),
          nameAttribute(CN, "system:node:gw-1"),
        ),
      },
    },
    "subject",
  ],
  [
    "an administrator's group instead",
    { parts: { subject: sequence(nameAttribute(O, "system:masters"), nameAttribute(CN, "system:node:gw-1")) } },
    "subject",
  ],
  ["no group", { parts: { subject: sequence(nameAttribute(CN, "system:node:gw-1")) } }, "subject"],
  [
    "another kind of user",
    { parts: { subject: sequence(nameAttribute(O, "system:nodes"), nameAttribute(CN, "system:admin")) } },
    "subject",
  ],
  ["names in an identity", { parts: { names: [dns("gw-1")] } }, "names"],
  ["an extension of its own", { parts: { extensions: [extension("2.5.29.19", sequence())] } }, "extensions"],
  ["more usages", { usages: [...CLIENT, "server auth"] }, "usages"],
  ["a usage twice", { usages: [...CLIENT, "client auth"] }, "usages"],
  ["any usage", { usages: ["any"] }, "usages"],
  ["an identity where a server is asked for", serving([ip(192, 168, 1, 7)], { usages: CLIENT }), "usages"],
  ["ten years", { expirationSeconds: 315_360_000 }, "lifetime"],
  ["a minute", { expirationSeconds: 60 }, "lifetime"],
  ["a weak key", { parts: { keys: rsaKeys(1024) } }, "key"],
  ["somebody else's address", serving([ip(192, 168, 1, 8)]), "address"],
  ["one of its own and one of another", serving([ip(192, 168, 1, 7), ip(192, 168, 1, 8)]), "address"],
  ["a wildcard", serving([dns("*.gw-1")]), "address"],
  ["the API server's Service, though its object claims it", serving([ip(10, 96, 0, 1)]), "reserved-address"],
  ["the API server's own address, though its object claims it", serving([ip(192, 168, 1, 100)]), "reserved-address"],
  ["a Service's name, though its object claims it", serving([dns("kubernetes.default.svc")]), "reserved-address"],
  ["loopback", serving([ip(127, 0, 0, 1)]), "reserved-address"],
  ["no name at all", serving([]), "names"],
  ["a mail address", serving([ip(192, 168, 1, 7), email("a@b")]), "names"],
  ["a URI", serving([ip(192, 168, 1, 7), uri("spiffe://a")]), "names"],
  [
    "a node that is not there",
    serving([ip(192, 168, 1, 7)], {
      parts: { subject: nodeSubject("gw-9"), names: [ip(192, 168, 1, 7)] },
      username: "system:node:gw-9",
    }),
    "no-node",
  ],
  ["a token for a serving certificate", serving([ip(192, 168, 1, 7)], TOKEN), "requester"],
  ["no request", { pem: "hello" }, "unreadable"],
  ["two requests in one", { pem: mintRequest() + mintRequest() }, "unreadable"],
  ["a certificate's label", { pem: mintRequest().replaceAll("CERTIFICATE REQUEST", "CERTIFICATE") }, "unreadable"],
  ["a signature by another key", { parts: { keys: { ...ecKeys(), publicKey: ecKeys().publicKey } } }, "unreadable"],
  ["a megabyte", { pem: "x".repeat(1_000_000) }, "unreadable"],
];

describe("approved", () => {
  test.each(FIT)("%s", async (_what, asked) => {
    expect(await judged(asked)).toBe(true);
  });
});

describe("left to others, never denied", () => {
  test.each(UNFIT)("%s", async (_what, asked, reason) => {
    expect({ approved: await judged(asked), [reason]: left(reason) }).toEqual({ approved: false, [reason]: true });
    expect(api.asked.filter((one) => one.startsWith("PUT"))).toEqual([]);
  });

  test("what another signer is asked for is not even looked at", async () => {
    expect(await judged({ signerName: "example.com/other" })).toBe(false);
    expect(PENDING_REASONS.some((reason) => left(reason))).toBe(false);
  });

  test.each([
    ["approved", { conditions: [{ type: "Approved" }] }],
    ["denied", { conditions: [{ type: "Denied" }] }],
    ["failed", { conditions: [{ type: "Failed" }] }],
    ["issued", { certificate: "x" }],
  ])("what is %s already", async (_what, status) => {
    ask("one", { status });
    await approver.round();
    expect(api.asked.filter((one) => one.startsWith("PUT"))).toEqual([]);
  });

  test("is told once", async () => {
    ask("one", { usages: ["any"] });
    for (let round = 0; round < 5; round++) {
      await approver.round();
      await clock.pass(2_000);
    }
    expect(api.asked.filter((one) => one.startsWith("POST")).length).toBe(1);
  });
});

describe("one an hour", () => {
  test("of three at once one is approved, of another use one too; an hour later the next", async () => {
    for (const name of ["a", "b", "c"]) ask(name, {});
    ask("s", serving([ip(192, 168, 1, 7)]));
    await approver.round();
    expect(["a", "b", "c"].filter(isApproved).length).toBe(1);
    expect(isApproved("s")).toBe(true);
  });

  test("counts over a guard that starts anew, by what stands in the API", async () => {
    const at = new Date(clock.nowMs() - 1_800_000).toISOString();
    ask("before", { status: { conditions: [{ type: "Approved", lastUpdateTime: at }], certificate: "x" } });
    begin();
    expect(await judged({})).toBe(false);
    expect(left("too-often")).toBe(true);
    await clock.pass(1_900_000);
    await approver.round();
    expect(isApproved("one")).toBe(true);
  });
});

test("a flood of unfit requests, first by name, stands in nobody's way", async () => {
  const pem = mintRequest({ subject: nodeSubject("gw-2") });
  for (let index = 0; index < 350; index++) ask(`a-${String(index).padStart(4, "0")}`, { pem });
  ask("z", {});
  for (let round = 0; round < 4; round++) await approver.round();
  expect(isApproved("z")).toBe(true);
  // And one that becomes fit later is found again, flood or not.
  ask("late", serving([ip(192, 168, 1, 9)]));
  for (let round = 0; round < 4; round++) await approver.round();
  expect(isApproved("late")).toBe(false);
  const node = api.objects.get("/api/v1/nodes/gw-1")!;
  api.put("/api/v1/nodes/gw-1", { ...node, status: { addresses: [{ type: "InternalIP", address: "192.168.1.9" }] } });
  for (let round = 0; round < 5; round++) await approver.round();
  expect(isApproved("late")).toBe(true);
});

test("an approval without a time counts as now", async () => {
  ask("before", { status: { conditions: [{ type: "Approved" }], certificate: "x" } });
  expect(await judged({})).toBe(false);
  expect(left("too-often")).toBe(true);
});

test("whoever changes the request meanwhile has won", async () => {
  ask("one", {});
  const update = api.update.bind(api);
  api.update = async (path, object) => {
    api.put(`${REQUESTS}/one`, api.objects.get(`${REQUESTS}/one`)!);
    return await update(path, object);
  };
  await approver.round();
  expect(isApproved("one")).toBe(false);
});

test("requests that cannot be listed are an error of the round, and the next goes on", async () => {
  api.failure = new ApiError("cut", 0, "");
  expect(approver.round()).rejects.toThrow(ApiError);
  api.failure = undefined;
  expect(await judged({})).toBe(true);
});
