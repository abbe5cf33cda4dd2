/**
 * Which certificate requests are approved, and everything an attacker may try instead.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { createAuthority, issueClientCertificate } from "../../src/certificates/authority.ts";
import {
  ADDRESSES_ANNOTATION,
  NODE_ANNOTATION,
  PLACE_LABELS,
  placeNameOf,
  PORTS_NAME,
} from "../../src/kube/tunnel-names.ts";
import { readCertificateRequest } from "../../src/certificates/certificate-request.ts";
import { ApiError } from "../../src/cluster/api.ts";
import { Claims } from "../../src/guard/claims.ts";
import { CsrApprover } from "../../src/guard/csr-approver.ts";
import { PENDING_REASONS, SIGNERS } from "../../src/guard/csr-rules.ts";
import { Happenings } from "../../src/guard/happenings.ts";
import { Leader } from "../../src/guard/leader.ts";
import { TakenNames } from "../../src/guard/taken-names.ts";
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
    // What a stolen node might write, too.
    ...[
      "api.example.com",
      "192.168.1.50",
      "fd00:0::50",
      "10.96.0.10",
      "fd00:96::a",
      "web.shop",
      "WEB.shop",
      "web",
      "gw-2",
      "gw-2.plant.example",
      "192.168.1.8",
      "169.254.169.254",
      "fe80::1",
      "*.example.com",
    ].map((address) => ({ type: "ExternalIP", address })),
  ];
  api.put("/api/v1/nodes/gw-1", { metadata: { labels: {} }, status: { addresses } });
  api.put("/api/v1/nodes/gw-2", {
    status: {
      addresses: [
        { type: "InternalIP", address: "192.168.1.8" },
        { type: "InternalDNS", address: "gw-2.plant.example" },
        // And what another stolen node may do to us.
        { type: "Hostname", address: "gw-1" },
      ],
    },
  });
  service("default", "kubernetes", "10.96.0.1");
  service("shop", "web", "10.96.0.10", "fd00:96::a");
  service("shop", "headless", "None");
  api.put("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes", {
    endpoints: [{ addresses: ["192.168.1.100"] }],
  });
});

function service(namespace: string, name: string, ...clusterIPs: string[]): void {
  api.put(`/api/v1/namespaces/${namespace}/services/${name}`, { metadata: { namespace }, spec: { clusterIPs } });
}

interface NodeObject {
  readonly metadata: { readonly name: string };
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] };
}

/** The nodes as a guard's view has them. */
function* nodes() {
  for (const [path, object] of api.objects) {
    const { metadata, status } = object as unknown as NodeObject;
    if (path.startsWith("/api/v1/nodes/")) yield { name: metadata.name, addresses: status?.addresses ?? [] };
  }
}

/** In the certificate that the API server serves. */
const API_SERVER = ["kubernetes", "api.example.com", "192.168.1.50", "fd00::50", "cp-1", "192.168.1.101"];

function takenFrom(client: MemoryApi) {
  const { readConfigMap } = client;
  return { client, clock, nodes, namespace: "holdfast-system", readConfigMap, apiServerNames: async () => API_SERVER };
}

/** Leads, and lets others approve only what is claimed. */
function alone(): Claims {
  return new Claims({ term: 1, isLeader: true, found: () => undefined, annotate: () => Promise.resolve(true) }, clock);
}

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
  approver = new CsrApprover({
    api,
    client: api,
    clock,
    log: silentLog,
    metrics,
    happenings,
    taken: new TakenNames(takenFrom(api)),
    claims: alone(),
    isLeader: () => true,
    read: readCertificateRequest,
  });
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
  ["an address that is nobody's", serving([ip(192, 168, 1, 9)]), "address"],
  ["one of its own and one that is nobody's", serving([ip(192, 168, 1, 7), ip(192, 168, 1, 9)]), "address"],
  ["a wildcard", serving([dns("*.gw-1")]), "address"],
  ["the API server's Service, though its object claims it", serving([ip(10, 96, 0, 1)]), "reserved-address"],
  ["the API server's own address, though its object claims it", serving([ip(192, 168, 1, 100)]), "reserved-address"],
  ["a Service's name, though its object claims it", serving([dns("kubernetes.default.svc")]), "reserved-address"],
  ["loopback", serving([ip(127, 0, 0, 1)]), "reserved-address"],
  ["link-local, where a cloud answers", serving([ip(169, 254, 169, 254)]), "reserved-address"],
  ["the control plane's name, though its object claims it", serving([dns("api.example.com")]), "reserved-address"],
  ["the control plane's name in capitals", serving([dns("API.example.com")]), "reserved-address"],
  ["the control plane's address, though its object claims it", serving([ip(192, 168, 1, 50)]), "reserved-address"],
  [
    "the control plane's IPv6 address, written otherwise",
    serving([ip(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50)]),
    "reserved-address",
  ],
  ["its own address and the control plane's", serving([ip(192, 168, 1, 7), ip(192, 168, 1, 50)]), "reserved-address"],
  ["a Service's cluster address", serving([ip(10, 96, 0, 10)]), "reserved-address"],
  ["a Service's cluster address as a name", serving([dns("10.96.0.10")]), "reserved-address"],
  ["a Service's name with its namespace", serving([dns("web.shop")]), "reserved-address"],
  ["a Service's name with its namespace in capitals", serving([dns("WEB.shop")]), "reserved-address"],
  ["a Service's name alone", serving([dns("web")]), "reserved-address"],
  ["another node's name", serving([dns("gw-2")]), "another-nodes"],
  ["another node's DNS name", serving([dns("gw-2.plant.example")]), "another-nodes"],
  ["another node's address, though its object claims it", serving([ip(192, 168, 1, 8)]), "another-nodes"],
  ["a wildcard that its object claims", serving([dns("*.example.com")]), "names"],
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

describe("names of others", () => {
  test("a node that an administrator labelled as control plane has the API server's own, and no Service's", async () => {
    const labels = { "node-role.kubernetes.io/control-plane": "" };
    const addresses = ["192.168.1.101", "cp-1", "10.96.0.1"].map((address) => ({ type: "InternalIP", address }));
    api.put("/api/v1/nodes/cp-1", { metadata: { labels }, status: { addresses } });
    const asCp = (...names: Buffer[]) => ({
      ...serving([], { username: "system:node:cp-1" }),
      parts: { subject: nodeSubject("cp-1"), names },
    });
    ask("service", asCp(ip(192, 168, 1, 101), ip(10, 96, 0, 1)));
    ask("own", asCp(ip(192, 168, 1, 101), dns("cp-1")));
    await approver.round();
    expect([isApproved("own"), isApproved("service")]).toEqual([true, false]);
  });

  test("a node called as a Service has its own name, and one whose name another node claims has it too", async () => {
    service("shop", "gw-1", "10.96.0.11");
    expect(await judged(serving([dns("gw-1")]))).toBe(true);
  });

  test("what cannot be read is nobody's to give: no serving certificate, identities as ever", async () => {
    api.refuses = (asked) => asked === "LIST /api/v1/services";
    ask("identity", {});
    expect(await judged(serving([ip(192, 168, 1, 7)]))).toBe(false);
    expect(isApproved("identity")).toBe(true);
    api.refuses = () => false;
    await approver.round();
    expect(isApproved("one")).toBe(true);
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

test("a certificate of minutes is followed by the next after half its life", async () => {
  clock.wallShiftMs = Date.now();
  const authority = createAuthority({ commonName: "signer", nowMs: clock.nowMs() });
  const lifeMs = 600_000;
  const days = lifeMs / 86_400_000;
  const { certPem } = issueClientCertificate(authority, { commonName: "any", nowMs: clock.nowMs(), days });
  const at = new Date(clock.nowMs()).toISOString();
  ask("before", { status: { conditions: [{ type: "Approved", lastUpdateTime: at }], certificate: btoa(certPem) } });
  await clock.pass(lifeMs / 2 - 5_000);
  expect(await judged({})).toBe(false);
  await clock.pass(5_000);
  await approver.round();
  expect(isApproved("one")).toBe(true);
});

test("a leader that is cut off with an approval on its way, and the next one, approve one between them", async () => {
  const stop = new AbortController();
  const { promise: arrives, resolve: arrive } = Promise.withResolvers<void>();
  // The first leader's way to the API server: it hangs with the approval, then is cut.
  const first = new MemoryApi();
  Object.defineProperty(first, "objects", { value: api.objects });
  let isSent = false;
  first.update = async (path, object) => {
    if (path.endsWith("/approval")) {
      isSent = true;
      await arrives;
    }
    return await api.update(path, object);
  };
  const candidate = (identity: string, client: MemoryApi) => {
    const leader = new Leader({
      api: client,
      clock,
      log: silentLog,
      namespace: "holdfast-system",
      name: "holdfast-guard",
      identity,
      signal: stop.signal,
    });
    void leader.run();
    const claims = new Claims(leader, clock);
    const taken = new TakenNames(takenFrom(client));
    const options = {
      api: client,
      client,
      clock,
      log: silentLog,
      metrics: new Metrics(),
      taken,
      claims,
      read: readCertificateRequest,
    };
    const happenings = { tell: () => undefined } as unknown as Happenings;
    return { leader, approver: new CsrApprover({ ...options, happenings, isLeader: () => leader.isLeader }) };
  };
  const a = candidate("a", first);
  await clock.pass(3_000);
  const b = candidate("b", api);
  ask("one", {});
  const round = a.approver.round();
  await clock.pass(1);
  expect(isSent).toBe(true);
  first.failure = new ApiError("cut", 0, "");
  first.get = () => Promise.reject(first.failure);
  // The other request comes first in the list.
  const one = api.objects.get(`${REQUESTS}/one`)!;
  api.objects.delete(`${REQUESTS}/one`);
  ask("two", {});
  api.objects.set(`${REQUESTS}/one`, one);
  for (let second = 0; second < 40; second++) {
    await clock.pass(1_000);
    if (b.leader.isLeader) await b.approver.round();
  }
  expect([a.leader.isLeader, b.leader.isLeader]).toEqual([false, true]);
  arrive();
  await round;
  for (let second = 0; second < 200; second++) {
    await clock.pass(1_000);
    await b.approver.round();
  }
  expect(["one", "two"].map(isApproved)).toEqual([true, false]);
  stop.abort();
  await clock.pass(10_000);
});

describe("a node's place at the gateway", () => {
  const PLACE = ip(10, 96, 7, 7);
  const ask = (...names: Buffer[]) => judged(serving(names));
  const placeService = (more: { name?: string; namespace?: string; node?: string; labels?: object } = {}) => {
    const { node = "gw-1", name = placeNameOf(node), namespace = "holdfast-system", labels = PLACE_LABELS } = more;
    const metadata = { namespace, labels, annotations: { [NODE_ANNOTATION]: node } };
    api.put(`/api/v1/namespaces/${namespace}/services/${name}`, { metadata, spec: { clusterIPs: ["10.96.7.7"] } });
  };
  const ports = (data: Record<string, string>, namespace = "holdfast-system") =>
    api.put(`/api/v1/namespaces/${namespace}/configmaps/${PORTS_NAME}`, {
      metadata: { annotations: { [ADDRESSES_ANNOTATION]: "203.0.113.7, gw.example" } },
      data,
    });

  test("in its Service is certified beside its own addresses, before and after its status shows it", async () => {
    placeService();
    expect(await ask(ip(192, 168, 1, 7), PLACE)).toBe(true);
  });

  test("in its Service is certified though the gateway has a port for it, as it has behind every Service", async () => {
    placeService();
    api.put(`/api/v1/namespaces/holdfast-system/configmaps/${PORTS_NAME}`, {
      metadata: { annotations: {} },
      data: { "20017": "gw-1" },
    });
    expect(await ask(ip(192, 168, 1, 7), PLACE)).toBe(true);
  });

  test("is not another node's", async () => {
    placeService({ node: "gw-2" });
    expect(await ask(PLACE)).toBe(false);
    expect(left("reserved-address")).toBe(true);
  });

  test("is not believed because a status says so", async () => {
    const path = "/api/v1/nodes/gw-1";
    const node = api.objects.get(path) as unknown as NodeObject;
    const addresses = [...(node.status?.addresses ?? []), { type: "InternalIP", address: "10.96.7.7" }];
    api.put(path, { ...(node as object), status: { addresses } });
    placeService({ node: "gw-2" });
    expect(await ask(PLACE)).toBe(false);
  });

  test.each([
    ["a Service in another namespace", { namespace: "shop" }],
    ["a Service of another name", { name: "tunnel-mine" }],
    ["a Service without its labels", { labels: {} }],
  ])("is not %s", async (_name, more) => {
    placeService(more);
    expect(await ask(PLACE)).toBe(false);
    expect(left("reserved-address")).toBe(true);
  });

  test("by a port is the gateway's address, for a node that has a port there", async () => {
    ports({ "20017": "gw-1" });
    expect(await ask(ip(203, 0, 113, 7), dns("gw.example"))).toBe(true);
  });

  test.each([
    ["a node without a port", { "20017": "gw-2" }, "holdfast-system"],
    ["a ConfigMap of another namespace", { "20017": "gw-1" }, "shop"],
  ])("by a port is nothing for %s", async (_name, data, namespace) => {
    ports(data, namespace);
    expect(await ask(ip(203, 0, 113, 7))).toBe(false);
    expect(left("address")).toBe(true);
  });

  test("is never the API server's address", async () => {
    api.put(`/api/v1/namespaces/holdfast-system/configmaps/${PORTS_NAME}`, {
      metadata: { annotations: { [ADDRESSES_ANNOTATION]: "192.168.1.50" } },
      data: { "20017": "gw-1" },
    });
    expect(await ask(ip(192, 168, 1, 50))).toBe(false);
    expect(left("reserved-address")).toBe(true);
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
