/**
 * What Holdfast relies on an API server to do, as black-box HTTP tests.
 *
 * The suite runs against the stand-in on every test run and against a real
 * kube-apiserver where there is one; a rule that only one of them follows is a
 * fault of the stand-in. Messages are compared where clients or people read
 * them, not everywhere.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { decode, fieldsOf, openEnvelope } from "../../src/demo/api-server/protobuf.ts";
import { messageOf } from "../../src/demo/api-server/schema.ts";
import { Client, eventually, type Call, type Event, type Reply, type Target } from "./client.ts";

const PROTOBUF = "application/vnd.kubernetes.protobuf";
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/** Registers the suite. `connect` is called once, before the first test. */
export function contractSuite(name: string, connect: () => Promise<Target>): void {
  const id = randomBytes(4).toString("hex");
  const namespace = `contract-${id}`;
  const crdGroup = `c${id}.holdfast.dev`;
  const root = `/api/v1/namespaces/${namespace}`;
  const configMaps = `${root}/configmaps`;
  const gizmos = `/apis/${crdGroup}/v1/namespaces/${namespace}/gizmos`;
  let client: Client;

  const create = async (path: string, body: unknown): Promise<any> => {
    const reply = await client.call(path, { method: "POST", body });
    if (reply.status !== 201) throw new Error(`${path}: ${reply.status} ${reply.text}`);
    return reply.json;
  };
  const configMap = (title: string, data: Record<string, string> = {}, labels?: Record<string, string>) => ({
    metadata: { name: title, ...(labels ? { labels } : {}) },
    data,
  });
  const pod = (title: string, nodeName?: string) => ({
    metadata: { name: title },
    spec: {
      containers: [{ name: "main", image: "none" }],
      automountServiceAccountToken: false,
      ...(nodeName ? { nodeName } : {}),
    },
  });
  const merge = (path: string, patch: unknown, type = "application/merge-patch+json"): Promise<Reply> =>
    client.call(path, { method: "PATCH", body: patch, headers: { "content-type": type } });
  const send = (path: string, call: Call) => client.call(path, call);
  const revisionNow = async () => (await client.get(`${configMaps}?limit=1`)).json.metadata.resourceVersion as string;

  describe(`${name} follows the contract`, () => {
    beforeAll(async () => {
      client = new Client(await connect());
      await create("/api/v1/namespaces", { metadata: { name: namespace } });
      await create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(crdGroup));
      await eventually(async () => (await client.get(gizmos)).status === 200);
      // the real one's admission wants the account, which a controller makes
      await eventually(async () => {
        const { status } = await client.get(`${root}/serviceaccounts/default`);
        if (status === 200) return true;
        await client.call(`${root}/serviceaccounts`, { method: "POST", body: { metadata: { name: "default" } } });
        return undefined;
      });
    }, 30_000);

    afterAll(async () => {
      await client.call(`/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gizmos.${crdGroup}`, {
        method: "DELETE",
      });
      await client.call(`/api/v1/namespaces/${namespace}`, { method: "DELETE" });
      client[Symbol.dispose]();
    });

    describe("says what it is", () => {
      test("health and version", async () => {
        for (const path of ["/livez", "/readyz", "/healthz"]) expect((await client.get(path)).text).toBe("ok");
        expect((await client.get("/version")).json).toMatchObject({
          major: "1",
          gitVersion: expect.stringMatching(/^v1\./),
        });
      });

      test("core versions, groups, and the resources of a group version", async () => {
        expect((await client.get("/api")).json).toMatchObject({ kind: "APIVersions", versions: ["v1"] });
        const { groups } = (await client.get("/apis")).json;
        expect(groups.find((group: any) => group.name === "apps").preferredVersion).toEqual({
          groupVersion: "apps/v1",
          version: "v1",
        });
        expect((await client.get("/apis/discovery.k8s.io")).json).toMatchObject({
          kind: "APIGroup",
          name: "discovery.k8s.io",
        });
        const { resources } = (await client.get("/api/v1")).json;
        expect(resources.find((one: any) => one.name === "pods")).toMatchObject({
          namespaced: true,
          kind: "Pod",
          singularName: "pod",
          shortNames: ["po"],
        });
        expect(resources.map((one: any) => one.name)).toContain("pods/status");
        expect((await client.get(`/apis/${crdGroup}/v1`)).json.resources[0]).toMatchObject({
          name: "gizmos",
          kind: "Gizmo",
          namespaced: true,
        });
      });

      test("aggregated discovery has an ETag and answers 304 to it", async () => {
        const reply = await client.get("/apis", { accept: AGGREGATED });
        expect(reply.headers["content-type"]).toBe(AGGREGATED);
        expect(reply.json).toMatchObject({ kind: "APIGroupDiscoveryList", apiVersion: "apidiscovery.k8s.io/v2" });
        const again = await client.get("/apis", { accept: AGGREGATED, "if-none-match": reply.headers.etag! });
        expect([again.status, again.text]).toEqual([304, ""]);
      });

      test("OpenAPI documents exist", async () => {
        expect((await client.get("/openapi/v3")).json.paths["api/v1"].serverRelativeURL).toMatch(
          /^\/openapi\/v3\/api\/v1\?hash=/,
        );
        expect((await client.get("/openapi/v2")).json.swagger).toBe("2.0");
      });

      test("an unknown resource, group version or path is 404", async () => {
        const unknown = await client.get("/api/v1/nonsense");
        expect(unknown.json).toEqual({
          kind: "Status",
          apiVersion: "v1",
          metadata: {},
          status: "Failure",
          message: "the server could not find the requested resource",
          reason: "NotFound",
          details: {},
          code: 404,
        });
        expect((await client.get("/apis/apps/v9")).json.message).toBe(
          "the server could not find the requested resource",
        );
        for (const path of ["/apis/nonsense.example.com/v1/things", "/apis/nonsense.example.com", "/nonsense"])
          expect((await client.get(path)).text).toBe("404 page not found\n");
      });
    });

    describe("knows who asks", () => {
      test("a token that is none is 401", async () => {
        using stranger = new Client({ url: client.target.url, ca: client.target.ca, token: "nonsense" });
        const reply = await stranger.get(configMaps);
        expect([reply.status, reply.json]).toEqual([
          401,
          {
            kind: "Status",
            apiVersion: "v1",
            metadata: {},
            status: "Failure",
            message: "Unauthorized",
            reason: "Unauthorized",
            code: 401,
          },
        ]);
      });

      test.each([
        [
          "a list",
          () => configMaps,
          `configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" in the namespace "${namespace}"`,
        ],
        [
          "a get",
          () => `${configMaps}/some`,
          `configmaps "some" is forbidden: User "system:anonymous" cannot get resource "configmaps" in API group "" in the namespace "${namespace}"`,
        ],
        [
          "a watch of one",
          () => `${configMaps}?watch=1&fieldSelector=metadata.name%3Dsome`,
          `configmaps "some" is forbidden: User "system:anonymous" cannot watch resource "configmaps" in API group "" in the namespace "${namespace}"`,
        ],
        [
          "a cluster-wide list",
          () => "/apis/apps/v1/deployments",
          'deployments.apps is forbidden: User "system:anonymous" cannot list resource "deployments" in API group "apps" at the cluster scope',
        ],
        [
          "a subresource",
          () => `${root}/pods/some/log`,
          `pods "some" is forbidden: User "system:anonymous" cannot get resource "pods/log" in API group "" in the namespace "${namespace}"`,
        ],
        ["a path", () => "/metrics", 'forbidden: User "system:anonymous" cannot get path "/metrics"'],
      ])("no credential is refused %s with 403", async (_, path, message) => {
        using nobody = new Client({ url: client.target.url, ca: client.target.ca });
        const { status, json } = await nobody.get(path());
        expect([status, json.reason, json.message]).toEqual([403, "Forbidden", message]);
      });

      test("SelfSubjectReview and SelfSubjectAccessReview answer", async () => {
        const self = await create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {});
        expect(self).toMatchObject({
          kind: "SelfSubjectReview",
          status: {
            userInfo: { username: expect.any(String), groups: expect.arrayContaining(["system:authenticated"]) },
          },
        });
        const access = await create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
          spec: { resourceAttributes: { verb: "list", resource: "pods", namespace } },
        });
        expect(access.status.allowed).toBe(true);
      });

      test("a service-account token is issued, enters, and is reviewed", async () => {
        const issued = await create(`${root}/serviceaccounts/default/token`, {
          spec: { audiences: [], expirationSeconds: 3600 },
        });
        expect([issued.kind, issued.spec.expirationSeconds, typeof issued.status.expirationTimestamp]).toEqual([
          "TokenRequest",
          3600,
          "string",
        ]);
        const claims = JSON.parse(Buffer.from(issued.status.token.split(".")[1], "base64url").toString());
        expect(claims).toMatchObject({
          sub: `system:serviceaccount:${namespace}:default`,
          "kubernetes.io": { namespace, serviceaccount: { name: "default" } },
        });
        using account = new Client({ url: client.target.url, ca: client.target.ca, token: issued.status.token });
        const self = await account.call("/apis/authentication.k8s.io/v1/selfsubjectreviews", {
          method: "POST",
          body: {},
        });
        expect(self.json.status.userInfo.username).toBe(`system:serviceaccount:${namespace}:default`);
        const review = await create("/apis/authentication.k8s.io/v1/tokenreviews", {
          spec: { token: issued.status.token },
        });
        expect(review.status).toMatchObject({
          authenticated: true,
          user: { username: `system:serviceaccount:${namespace}:default` },
        });
        const bad = await create("/apis/authentication.k8s.io/v1/tokenreviews", { spec: { token: "nonsense" } });
        expect(bad.status.authenticated).toBeUndefined();
        expect(
          (await client.get("/openid/v1/jwks", { accept: "application/jwk-set+json" })).json.keys[0],
        ).toMatchObject({ use: "sig", kid: expect.any(String) });
        expect((await client.get("/openid/v1/jwks")).status).toBe(406);
      });
    });

    describe("writes", () => {
      test("create gives identity; a second one is 409", async () => {
        const made = await create(configMaps, configMap("made", { a: "1" }));
        expect(made).toMatchObject({
          kind: "ConfigMap",
          apiVersion: "v1",
          metadata: {
            name: "made",
            namespace,
            uid: expect.any(String),
            resourceVersion: expect.stringMatching(/^[1-9]\d*$/),
            creationTimestamp: expect.stringMatching(/^\d{4}-.*Z$/),
          },
          data: { a: "1" },
        });
        const again = await send(configMaps, { method: "POST", body: configMap("made") });
        expect([again.status, again.json]).toEqual([
          409,
          {
            kind: "Status",
            apiVersion: "v1",
            metadata: {},
            status: "Failure",
            message: 'configmaps "made" already exists',
            reason: "AlreadyExists",
            details: { name: "made", kind: "configmaps" },
            code: 409,
          },
        ]);
      });

      test.each([
        [
          "a resourceVersion of one's own",
          () => configMaps,
          { metadata: { name: "x", resourceVersion: "1" } },
          500,
          "resourceVersion should not be set on objects to be created",
        ],
        [
          "no name",
          () => configMaps,
          { metadata: {} },
          422,
          'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
        ],
        [
          "another namespace in the object",
          () => configMaps,
          { metadata: { name: "x", namespace: "other" } },
          400,
          "the namespace of the provided object does not match the namespace sent on the request",
        ],
        [
          "a namespace that is not there",
          () => "/api/v1/namespaces/nowhere-at-all/configmaps",
          { metadata: { name: "x" } },
          404,
          'namespaces "nowhere-at-all" not found',
        ],
      ])("create with %s is refused", async (_, path, body, code, message) => {
        const reply = await send(path(), { method: "POST", body });
        expect([reply.status, reply.json.message]).toEqual([code, message]);
      });

      test("generateName makes a name of its own", async () => {
        const made = await create(configMaps, { metadata: { generateName: "some-" } });
        expect(made.metadata.name).toMatch(/^some-[a-z0-9]{5}$/);
      });

      test("an update from an older state is 409, from the present one it counts up, without a change it does not", async () => {
        const first = await create(configMaps, configMap("updated", { a: "1" }));
        const path = `${configMaps}/updated`;
        const second = (await send(path, { method: "PUT", body: { ...first, data: { a: "2" } } })).json;
        expect(BigInt(second.metadata.resourceVersion)).toBeGreaterThan(BigInt(first.metadata.resourceVersion));
        const late = await send(path, { method: "PUT", body: { ...first, data: { a: "3" } } });
        expect([late.status, late.json.reason, late.json.message]).toEqual([
          409,
          "Conflict",
          'Operation cannot be fulfilled on configmaps "updated": the object has been modified; please apply your changes to the latest version and try again',
        ]);
        const same = (await send(path, { method: "PUT", body: second })).json;
        expect(same.metadata.resourceVersion).toBe(second.metadata.resourceVersion);
      });

      test("an update with another uid is 409", async () => {
        const made = await create(configMaps, configMap("uids"));
        const reply = await send(`${configMaps}/uids`, {
          method: "PUT",
          body: { ...made, metadata: { ...made.metadata, uid: "other" } },
        });
        expect([reply.status, reply.json.reason]).toEqual([409, "Conflict"]);
        expect(reply.json.message).toContain(
          `Precondition failed: UID in precondition: other, UID in object meta: ${made.metadata.uid}`,
        );
      });

      test("a lease is created by PUT, and updated only with a resourceVersion", async () => {
        const path = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/beat`;
        const body = {
          kind: "Lease",
          apiVersion: "coordination.k8s.io/v1",
          metadata: { name: "beat", namespace },
          spec: { holderIdentity: "me", leaseDurationSeconds: 40, renewTime: "2026-01-02T03:04:05.678901Z" },
        };
        const made = await send(path, { method: "PUT", body });
        expect([made.status, made.json.spec.renewTime]).toEqual([201, "2026-01-02T03:04:05.678901Z"]);
        const blind = await send(path, { method: "PUT", body });
        expect([blind.status, blind.json.message]).toEqual([
          422,
          'leases.coordination.k8s.io "beat" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update',
        ]);
        expect((await send(path, { method: "PUT", body: made.json })).status).toBe(200);
      });

      test("merge, JSON and strategic patches; a patch naming an older resourceVersion is 409", async () => {
        const made = await create(configMaps, configMap("patched", { a: "1", b: "2" }));
        const path = `${configMaps}/patched`;
        expect((await merge(path, { data: { a: null, c: "3" } })).json.data).toEqual({ b: "2", c: "3" });
        expect(
          (
            await merge(
              path,
              [
                { op: "replace", path: "/data/b", value: "4" },
                { op: "add", path: "/data/d", value: "5" },
              ],
              "application/json-patch+json",
            )
          ).json.data,
        ).toEqual({ b: "4", c: "3", d: "5" });
        expect((await merge(path, { data: { b: null } }, "application/strategic-merge-patch+json")).json.data).toEqual({
          c: "3",
          d: "5",
        });
        const late = await merge(path, {
          metadata: { resourceVersion: made.metadata.resourceVersion },
          data: { z: "1" },
        });
        expect([late.status, late.json.reason]).toEqual([409, "Conflict"]);
        expect((await merge(`${configMaps}/absent`, {})).status).toBe(404);
      });

      test("strategic merge joins lists by their key and follows directives", async () => {
        await create(`${root}/pods`, pod("joined"));
        const path = `${root}/pods/joined/status`;
        const type = "application/strategic-merge-patch+json";
        const time = "2026-01-02T03:04:05Z";
        await merge(
          path,
          {
            status: {
              conditions: [
                { type: "Ready", status: "False", lastTransitionTime: time },
                { type: "Extra", status: "True", lastTransitionTime: time },
              ],
            },
          },
          type,
        );
        await merge(path, { status: { conditions: [{ type: "Ready", status: "True" }] } }, type);
        const joined = (
          await merge(
            path,
            {
              status: {
                $setElementOrder: undefined,
                conditions: [{ type: "Extra", $patch: "delete" }],
                podIPs: [{ ip: "10.0.0.9" }],
                podIP: "10.0.0.9",
              },
            },
            type,
          )
        ).json;
        expect(joined.status.conditions.filter((one: any) => ["Ready", "Extra"].includes(one.type))).toMatchObject([
          { type: "Ready", status: "True", lastTransitionTime: time },
        ]);
        expect(joined.status.podIPs).toEqual([{ ip: "10.0.0.9" }]);
      });

      test("a custom resource refuses a strategic merge with 415", async () => {
        await create(gizmos, gizmo(crdGroup, "stiff"));
        const reply = await merge(`${gizmos}/stiff`, { spec: { size: 2 } }, "application/strategic-merge-patch+json");
        expect([reply.status, reply.json.reason]).toEqual([415, "UnsupportedMediaType"]);
        expect(reply.json.message).toContain("application/merge-patch+json");
      });

      test("server-side apply creates and changes", async () => {
        const apply = (size: number) =>
          send(`${gizmos}/applied?fieldManager=contract`, {
            method: "PATCH",
            headers: { "content-type": "application/apply-patch+yaml" },
            body: JSON.stringify({ ...gizmo(crdGroup, "applied"), spec: { size } }),
          });
        expect((await apply(1)).status).toBe(201);
        const second = await apply(2);
        expect([second.status, second.json.spec.size]).toEqual([200, 2]);
      });

      test("a status write changes the status alone, another write everything but the status", async () => {
        const made = await create(gizmos, { ...gizmo(crdGroup, "twofold"), status: { state: "ignored" } });
        expect([made.status, made.metadata.generation]).toEqual([undefined, 1]);
        const status = (await merge(`${gizmos}/twofold/status`, { spec: { size: 9 }, status: { state: "good" } })).json;
        expect([status.spec.size, status.status.state, status.metadata.generation]).toEqual([1, "good", 1]);
        const spec = (await merge(`${gizmos}/twofold`, { spec: { size: 3 }, status: { state: "bad" } })).json;
        expect([spec.spec.size, spec.status.state, spec.metadata.generation]).toEqual([3, "good", 2]);
        const blind = await send(`${gizmos}/twofold`, { method: "PUT", body: gizmo(crdGroup, "twofold") });
        expect([blind.status, blind.json.message]).toEqual([
          422,
          `gizmos.${crdGroup} "twofold" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`,
        ]);
      });

      test("delete obeys its preconditions and says what went", async () => {
        const made = await create(configMaps, configMap("doomed"));
        const path = `${configMaps}/doomed`;
        const refused = await send(path, { method: "DELETE", body: { preconditions: { uid: "other" } } });
        expect([refused.status, refused.json.message]).toEqual([
          409,
          `Operation cannot be fulfilled on ConfigMap "doomed": the UID in the precondition (other) does not match the UID in record (${made.metadata.uid}). The object might have been deleted and then recreated`,
        ]);
        const gone = await send(path, { method: "DELETE", body: { preconditions: { uid: made.metadata.uid } } });
        expect([gone.status, gone.json]).toEqual([
          200,
          {
            kind: "Status",
            apiVersion: "v1",
            metadata: {},
            status: "Success",
            details: { name: "doomed", kind: "configmaps", uid: made.metadata.uid },
          },
        ]);
        expect((await send(path, { method: "DELETE" })).status).toBe(404);
      });

      test("finalizers hold a delete until they are gone", async () => {
        await create(configMaps, {
          ...configMap("held"),
          metadata: { name: "held", finalizers: ["holdfast.dev/contract"] },
        });
        const path = `${configMaps}/held`;
        // Also of a kind whose DELETE answers with a Status: it is not gone.
        const answer = (await send(path, { method: "DELETE" })).json;
        expect(answer).toMatchObject({ kind: "ConfigMap", metadata: { deletionTimestamp: expect.any(String) } });
        const marked = (await client.get(path)).json;
        expect(marked.metadata).toMatchObject({ deletionTimestamp: expect.any(String), deletionGracePeriodSeconds: 0 });
        expect((await merge(path, { metadata: { finalizers: null } })).status).toBe(200);
        expect((await client.get(path)).status).toBe(404);
      });

      test("a pod on a node is marked and waits for its kubelet", async () => {
        await create(`${root}/pods`, pod("graceful", "contract-node"));
        const path = `${root}/pods/graceful`;
        const marked = await send(path, { method: "DELETE" });
        expect([marked.status, marked.json.kind, marked.json.metadata.deletionGracePeriodSeconds]).toEqual([
          200,
          "Pod",
          30,
        ]);
        expect((await client.get(path)).status).toBe(200);
        await send(path, { method: "DELETE", body: { gracePeriodSeconds: 0 } });
        expect((await client.get(path)).status).toBe(404);
      });

      test("deletecollection takes what is selected", async () => {
        await create(configMaps, configMap("swept-1", {}, { sweep: "yes" }));
        await create(configMaps, configMap("swept-2", {}, { sweep: "yes" }));
        await send(`${configMaps}?labelSelector=sweep`, { method: "DELETE" });
        expect((await client.get(`${configMaps}?labelSelector=sweep`)).json.items).toEqual([]);
        expect((await client.get(`${configMaps}/made`)).status).toBe(200);
      });

      test("a dry run leaves no trace", async () => {
        const reply = await send(`${configMaps}?dryRun=All`, { method: "POST", body: configMap("phantom") });
        expect(reply.status).toBe(201);
        expect((await client.get(`${configMaps}/phantom`)).status).toBe(404);
      });

      test("a node is created with its status, and its status is patched", async () => {
        const title = `contract-${id}`;
        const made = await create("/api/v1/nodes", {
          metadata: { name: title },
          status: { capacity: { cpu: "2" }, conditions: [{ type: "Ready", status: "True" }] },
        });
        expect(made.status.capacity.cpu).toBe("2");
        const patched = await merge(
          `/api/v1/nodes/${title}/status`,
          {
            status: {
              conditions: [
                { type: "Ready", status: "False" },
                { type: "Other", status: "True" },
              ],
            },
          },
          "application/strategic-merge-patch+json",
        );
        expect(patched.json.status.conditions).toMatchObject([
          { type: "Ready", status: "False" },
          { type: "Other", status: "True" },
        ]);
        expect((await send(`/api/v1/nodes/${title}`, { method: "DELETE" })).json.status).toBe("Success");
      });

      test("a strategic merge leaves a node's addresses type by type, in the order of the patch", async () => {
        const title = `placed-${id}`;
        const address = (text: string) => {
          const [type, at] = text.split(" ");
          return { type, address: at };
        };
        const addresses = (list: readonly string[]) => ({ status: { addresses: list.map(address) } });
        const of = (reply: { json: any }): string[] =>
          reply.json.status.addresses.map((one: { type: string; address: string }) => `${one.type} ${one.address}`);
        const patch = (body: object) =>
          merge(`/api/v1/nodes/${title}/status`, body, "application/strategic-merge-patch+json");
        await create("/api/v1/nodes", { metadata: { name: title } });
        // Two of one type: the first time as they come.
        const mixed = ["InternalIP 10.0.0.1", "Hostname one", "InternalIP fd00::1", "Hostname two"];
        expect(of(await patch(addresses(mixed)))).toEqual(mixed);
        const replace = { $patch: "replace" };
        const replaced = (list: readonly string[]) => ({ status: { addresses: [...list.map(address), replace] } });
        const grouped = ["InternalIP 10.0.0.1", "InternalIP fd00::1", "Hostname one", "Hostname two"];
        expect(of(await patch(replaced(mixed)))).toEqual(grouped);
        expect(of(await patch(addresses(["Hostname three"])))).toEqual([
          ...grouped.slice(0, 2),
          "Hostname three",
          "Hostname two",
        ]);
        const $setElementOrder = ["Hostname", "ExternalIP", "InternalIP"].map((type) => ({ type }));
        const ordered = await patch({
          status: { "$setElementOrder/addresses": $setElementOrder, ...addresses(["ExternalIP 192.0.2.1"]).status },
        });
        expect(of(ordered)).toEqual([
          "Hostname three",
          "Hostname two",
          "ExternalIP 192.0.2.1",
          "InternalIP 10.0.0.1",
          "InternalIP fd00::1",
        ]);
        await send(`/api/v1/nodes/${title}`, { method: "DELETE" });
      });

      test.each(nodeResources(id, namespace))("what a kubelet reads of %s, in both formats", async (_, one) => {
        const { path, kind, object } = one;
        const body = kind === "ClusterTrustBundle" ? { ...object, spec: { trustBundle: client.target.ca } } : object;
        const name = object.metadata.name;
        const made = await create(path, body);
        expect(made).toMatchObject(kind === "ClusterTrustBundle" ? object : body);

        const { json } = await client.get(`${path}/${name}`);
        const { apiVersion, raw, ...envelope } = openEnvelope(
          (await client.get(`${path}/${name}`, { accept: PROTOBUF })).bytes,
        );
        const decoded = decode(raw, messageOf(apiVersion.split("/").at(-2) ?? "", kind)!);
        expect({ ...envelope, apiVersion, spec: decoded["spec"] }).toEqual({ kind, apiVersion, spec: json.spec });
        const selected = await client.get(`${path}?fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}`);
        expect([selected.json.kind, selected.json.items.length]).toEqual([`${kind}List`, 1]);
        await send(`${path}/${name}`, { method: "DELETE" });
      });

      test("device slices are selected by node, and go all at once", async () => {
        const path = "/apis/resource.k8s.io/v1/resourceslices";
        for (const node of ["left", "right"]) await create(path, resourceSlice(`${node}-${id}`, `${node}-${id}`));
        const ofNode = (node: string) => `${path}?fieldSelector=${encodeURIComponent(`spec.nodeName=${node}-${id}`)}`;
        expect((await client.get(ofNode("left"))).json.items).toHaveLength(1);
        for (const node of ["left", "right"]) await send(ofNode(node), { method: "DELETE" });
        expect((await client.get(ofNode("right"))).json.items).toEqual([]);
      });

      test("a method that the path does not know is 405, a format that is none 415", async () => {
        expect((await send("/api/v1/configmaps", { method: "POST", body: configMap("x") })).json.reason).toBe(
          "MethodNotAllowed",
        );
        expect((await send(configMaps, { method: "PUT", body: configMap("x") })).json.reason).toBe("MethodNotAllowed");
        expect((await client.get("/api/v1/configmaps/x")).status).toBe(404);
        expect(
          (await send(configMaps, { method: "POST", body: "x", headers: { "content-type": "text/plain" } })).json
            .reason,
        ).toBe("UnsupportedMediaType");
      });

      test("a body that is no JSON is 400, a kind that is another's too", async () => {
        const broken = await send(configMaps, {
          method: "POST",
          body: "{",
          headers: { "content-type": "application/json" },
        });
        expect([broken.status, broken.json.reason]).toEqual([400, "BadRequest"]);
        const other = await send(configMaps, {
          method: "POST",
          body: { kind: "Secret", apiVersion: "v1", metadata: { name: "x" } },
        });
        expect([other.status, other.json.reason]).toEqual([400, "BadRequest"]);
      });
    });

    describe("reads", () => {
      test("keys stand in Go's order: typed kinds by struct, custom ones sorted", async () => {
        await create(configMaps, configMap("ordered", { b: "2", a: "<&>" }, { z: "1", y: "2" }));
        const text = (await client.get(`${configMaps}/ordered`)).text;
        expect(text).toMatch(
          /^\{"kind":"ConfigMap","apiVersion":"v1","metadata":\{"name":"ordered","namespace":"[^"]+","uid":"[^"]+","resourceVersion":"\d+","creationTimestamp":"[^"]+","labels":\{"y":"2","z":"1"\}/,
        );
        expect(text).toContain(String.raw`"data":{"a":"\u003c\u0026\u003e","b":"2"}`);
        expect(text.endsWith("}\n")).toBe(true);
        await create(gizmos, gizmo(crdGroup, "ordered"));
        expect((await client.get(`${gizmos}/ordered`)).text).toMatch(
          new RegExp(`^\\{"apiVersion":"${crdGroup}/v1","kind":"Gizmo","metadata":\\{"creationTimestamp":`),
        );
      });

      test("structs that are no pointers are printed empty", async () => {
        await create(`${root}/pods`, pod("hollow"));
        const { spec } = (await client.get(`${root}/pods/hollow`)).json;
        expect(spec.containers[0].resources).toEqual({});
        const event = await create(`${root}/events`, {
          metadata: { name: "hollow" },
          involvedObject: { kind: "Pod", namespace, name: "hollow" },
          reason: "Tested",
        });
        expect([event.source, event.firstTimestamp, event.eventTime, event.reportingInstance]).toEqual([
          {},
          null,
          null,
          "",
        ]);
      });

      test("what is not there is 404 in its own words", async () => {
        expect((await client.get(`${configMaps}/absent`)).json).toEqual({
          kind: "Status",
          apiVersion: "v1",
          metadata: {},
          status: "Failure",
          message: 'configmaps "absent" not found',
          reason: "NotFound",
          details: { name: "absent", kind: "configmaps" },
          code: 404,
        });
        expect((await client.get(`${gizmos}/absent`)).json.details).toEqual({
          name: "absent",
          group: crdGroup,
          kind: "gizmos",
        });
      });

      test("a list of built-ins has bare items; one of custom resources full ones, sorted", async () => {
        const list = await client.get(configMaps);
        expect(list.text).toMatch(
          /^\{"kind":"ConfigMapList","apiVersion":"v1","metadata":\{"resourceVersion":"\d+"\},"items":\[\{"metadata":/,
        );
        expect(Object.keys(list.json.items[0])).not.toContain("kind");
        const custom = await client.get(gizmos);
        expect(custom.text).toMatch(
          new RegExp(
            `^\\{"apiVersion":"${crdGroup}/v1","items":\\[\\{"apiVersion":"${crdGroup}/v1","kind":"Gizmo","metadata":`,
          ),
        );
        expect(custom.text).toMatch(/\],"kind":"GizmoList","metadata":\{"continue":"","resourceVersion":"\d+"\}\}\n$/);
      });

      test("a list is ordered by name and pages with limit and continue, all at one revision", async () => {
        for (const title of ["c", "a", "b"]) await create(configMaps, configMap(`page-${title}`, {}, { page: "yes" }));
        const all = (await client.get(configMaps)).json;
        const titles = all.items.map((item: any) => item.metadata.name);
        expect(titles).toEqual(titles.toSorted());
        const first = (await client.get(`${configMaps}?limit=2`)).json;
        expect([first.items.length, first.metadata.remainingItemCount]).toEqual([2, titles.length - 2]);
        await create(configMaps, configMap("page-late"));
        const second = (await client.get(`${configMaps}?limit=500&continue=${first.metadata.continue}`)).json;
        expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
        expect(second.metadata.continue).toBeUndefined();
        expect([...first.items, ...second.items].map((item: any) => item.metadata.name)).toEqual(titles);
        const selected = (await client.get(`${configMaps}?limit=2&labelSelector=page`)).json;
        expect([selected.items.length, selected.metadata.remainingItemCount]).toEqual([2, undefined]);
        expect((await client.get(`${configMaps}?limit=2&resourceVersion=0`)).json.metadata.continue).toBeUndefined();
      });

      test("Exact shows the state of that revision, NotOlderThan and 0 a present one", async () => {
        const first = await create(configMaps, configMap("exact", { a: "1" }));
        await merge(`${configMaps}/exact`, { data: { a: "2" } });
        const read = async (query: string) => {
          const { json } = await client.get(`${configMaps}?${query}`);
          return [
            json.metadata.resourceVersion,
            json.items.find((item: any) => item.metadata.name === "exact")?.data.a,
          ];
        };
        const { resourceVersion } = first.metadata;
        expect(await read(`resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`)).toEqual([
          resourceVersion,
          "1",
        ]);
        expect(await read(`resourceVersion=${resourceVersion}&limit=500`)).toEqual([resourceVersion, "1"]);
        expect((await read(`resourceVersion=${resourceVersion}&resourceVersionMatch=NotOlderThan`))[1]).toBe("2");
        expect((await read(`resourceVersion=${resourceVersion}`))[1]).toBe("2");
      });

      test("a resourceVersion from the future is 504 with its cause", async () => {
        for (const query of ["", "&resourceVersionMatch=NotOlderThan"]) {
          const reply = await client.get(`${configMaps}?resourceVersion=999999999${query}`);
          expect(reply.status).toBe(504);
          expect(reply.json).toMatchObject({
            reason: "Timeout",
            message: expect.stringMatching(/^Timeout: Too large resource version: 999999999, current: \d+$/),
            details: {
              causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
              retryAfterSeconds: 1,
            },
          });
          expect(reply.headers["retry-after"]).toBe("1");
        }
        expect((await client.get(`${configMaps}/made?resourceVersion=999999999`)).status).toBe(504);
      }, 30_000);

      test.each([
        [
          "resourceVersionMatch=Exact",
          422,
          "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ],
        [
          "resourceVersionMatch=Exact&resourceVersion=0",
          422,
          'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ],
        [
          "resourceVersionMatch=Nonsense&resourceVersion=5",
          422,
          'resourceVersionMatch: Unsupported value: "Nonsense": supported values: "Exact", "NotOlderThan", ""',
        ],
        ["sendInitialEvents=true", 422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"],
        ["resourceVersion=abc", 400, "invalid resource version"],
        ["limit=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'],
        ["continue=abc", 400, "invalid continue token: continue key is not valid"],
        ["labelSelector=a%20in", 400, "unable to parse requirement: found '' expected: '('"],
        [
          "fieldSelector=foo%3Dbar",
          400,
          '"foo" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ],
        ["fieldSelector=foo", 400, "invalid selector: 'foo'; can't understand 'foo'"],
      ])("a list with %s is refused", async (query, code, message) => {
        const { status, json } = await client.get(`${configMaps}?${query}`);
        expect([status, json.code]).toEqual([code, code]);
        expect(json.message).toContain(message);
      });

      test.each([
        ["labelSelector=color", ["blue", "red"]],
        ["labelSelector=!color,shape", ["plain"]],
        ["labelSelector=color%3Dred", ["red"]],
        ["labelSelector=color%3D%3Dred", ["red"]],
        ["labelSelector=color!%3Dred,shape", ["blue", "plain"]],
        ["labelSelector=color%20in%20(red,blue)", ["blue", "red"]],
        ["labelSelector=color%20notin%20(red),shape", ["blue", "plain"]],
        ["fieldSelector=metadata.name%3Dpick-red", ["red"]],
        ["labelSelector=shape&fieldSelector=metadata.name!%3Dpick-red", ["blue", "plain"]],
      ])("%s selects", async (query, expected) => {
        const body = (title: string, labels: Record<string, string>) =>
          send(configMaps, { method: "POST", body: configMap(`pick-${title}`, {}, { shape: "round", ...labels }) });
        await Promise.all([body("red", { color: "red" }), body("blue", { color: "blue" }), body("plain", {})]);
        const { items } = (await client.get(`${configMaps}?${query}`)).json;
        expect(items.map((item: any) => item.metadata.name)).toEqual(expected.map((title) => `pick-${title}`));
      });

      test("pods are selected by node and by phase", async () => {
        await create(`${root}/pods`, pod("placed", "contract-node"));
        const names = async (query: string) =>
          (await client.get(`${root}/pods?fieldSelector=${encodeURIComponent(query)}`)).json.items.map(
            (item: any) => item.metadata.name,
          );
        expect(await names("spec.nodeName=contract-node")).toEqual(["placed"]);
        expect(await names("spec.nodeName=other")).toEqual([]);
        expect(await names("status.phase=Pending,spec.nodeName=contract-node")).toEqual(["placed"]);
        const refused = await client.get(`${root}/pods?fieldSelector=spec.nonsense%3D1`);
        expect([refused.status, refused.json.message]).toEqual([400, "field label not supported: spec.nonsense"]);
      });

      test("large lists are gzipped when asked for", async () => {
        const filling = "x".repeat(50_000);
        for (const title of ["1", "2", "3"])
          await create(configMaps, configMap(`large-${title}`, { filling }, { large: "yes" }));
        const path = `${configMaps}?labelSelector=large`;
        const zipped = await client.get(path, { "accept-encoding": "gzip" });
        expect(zipped.headers["content-encoding"]).toBe("gzip");
        expect(zipped.json.items).toHaveLength(3);
        expect((await client.get(path)).headers["content-encoding"]).toBeUndefined();
        expect(
          (await client.get(`${configMaps}/made`, { "accept-encoding": "gzip" })).headers["content-encoding"],
        ).toBeUndefined();
        await send(path, { method: "DELETE" });
      });

      test("a type nobody serves is 406", async () => {
        const reply = await client.get(`${configMaps}/made`, { accept: "text/html" });
        expect([reply.status, reply.json.reason]).toEqual([406, "NotAcceptable"]);
      });

      test("Table and PartialObjectMetadata of objects and lists", async () => {
        const table = (await client.get(`${root}/pods`, { accept: TABLE })).json;
        expect(table).toMatchObject({
          kind: "Table",
          apiVersion: "meta.k8s.io/v1",
          metadata: { resourceVersion: expect.any(String) },
        });
        expect(table.columnDefinitions[0]).toMatchObject({ name: "Name", type: "string", format: "name" });
        expect(table.rows[0].cells[0]).toBe(table.rows[0].object.metadata.name);
        expect(table.rows[0].object.kind).toBe("PartialObjectMetadata");
        const bare = (await client.get(`${root}/pods?includeObject=None`, { accept: TABLE })).json;
        expect(bare.rows[0].object).toBeNull();
        expect((await client.get(`${configMaps}/made`, { accept: TABLE })).json).toMatchObject({
          kind: "Table",
          rows: [{ cells: expect.arrayContaining(["made"]) }],
        });
        const partial = (await client.get(`${configMaps}/made`, { accept: PARTIAL })).json;
        expect([partial.kind, partial.apiVersion, partial.metadata.name, partial.data]).toEqual([
          "PartialObjectMetadata",
          "meta.k8s.io/v1",
          "made",
          undefined,
        ]);
        const list = (await client.get(configMaps, { accept: PARTIAL_LIST })).json;
        expect([list.kind, Object.keys(list.items[0])]).toEqual([
          "PartialObjectMetadataList",
          ["kind", "apiVersion", "metadata"],
        ]);
        expect((await client.get(`${gizmos}/ordered`, { accept: TABLE })).json.rows[0].cells[0]).toBe("ordered");
      });
    });

    describe("speaks protobuf", () => {
      test("an object, the same as its JSON", async () => {
        const reply = await client.get(`${configMaps}/made`, { accept: PROTOBUF });
        expect(reply.headers["content-type"]).toBe(PROTOBUF);
        const { apiVersion, kind, raw } = openEnvelope(reply.bytes);
        const json = (await client.get(`${configMaps}/made`)).json;
        expect({ kind, apiVersion, ...decode(raw, messageOf("", "ConfigMap")!) }).toEqual(json);
      });

      test("a list of bare messages", async () => {
        const { kind, raw } = openEnvelope((await client.get(configMaps, { accept: PROTOBUF })).bytes);
        const items = [...fieldsOf(raw)]
          .filter(({ number }) => number === 2)
          .map(({ bytes }) => decode(bytes, messageOf("", "ConfigMap")!));
        const json = (await client.get(configMaps)).json;
        expect(kind).toBe("ConfigMapList");
        expect(items).toEqual(json.items);
      });

      test("a watch of length-prefixed frames", async () => {
        await create(configMaps, configMap("framed"));
        const reply = await client.get(
          `${configMaps}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dframed&timeoutSeconds=1`,
          { accept: PROTOBUF },
        );
        expect(reply.headers["content-type"]).toBe(`${PROTOBUF};stream=watch`);
        const frame = reply.bytes.subarray(4, 4 + reply.bytes.readUInt32BE(0));
        const [type, object] = [...fieldsOf(frame)];
        expect(Buffer.from(type!.bytes).toString()).toBe("ADDED");
        const { apiVersion, kind, raw } = openEnvelope([...fieldsOf(object!.bytes)][0]!.bytes);
        expect([apiVersion, kind, decode(raw, messageOf("", "ConfigMap")!)]).toMatchObject([
          "v1",
          "ConfigMap",
          { metadata: { name: "framed" } },
        ]);
      });

      test("a Status, when nothing else was asked for", async () => {
        const reply = await client.get(`${configMaps}/absent`, { accept: PROTOBUF });
        expect([reply.status, reply.headers["content-type"]]).toEqual([404, PROTOBUF]);
        const { kind, raw } = openEnvelope(reply.bytes);
        expect([kind, decode(raw, messageOf("", "Status")!)]).toMatchObject([
          "Status",
          { code: 404, reason: "NotFound" },
        ]);
      });

      test("and not for custom resources: 406, or JSON when that is accepted too", async () => {
        expect((await client.get(gizmos, { accept: PROTOBUF })).status).toBe(406);
        const both = await client.get(gizmos, { accept: `${PROTOBUF},application/json` });
        expect([both.status, both.headers["content-type"]]).toEqual([200, "application/json"]);
      });

      test("and takes it in a body", async () => {
        const { bytes } = await client.get(`${configMaps}/made`, { accept: PROTOBUF });
        const reply = await send(`${configMaps}/made`, {
          method: "PUT",
          body: bytes,
          headers: { "content-type": PROTOBUF },
        });
        expect([reply.status, reply.json.data]).toEqual([200, { a: "1" }]);
      });
    });

    describe("watches", () => {
      const named = (title: string) => `fieldSelector=metadata.name%3D${title}`;
      const types = (events: readonly Event[]) => events.map(({ type }) => type);

      test("from a revision: each change once, typed, the deletion with a revision of its own", async () => {
        const from = await revisionNow();
        using watch = await client.watch(`${configMaps}?watch=1&resourceVersion=${from}&${named("lived")}`);
        expect(watch.headers["content-type"]).toBe("application/json");
        await create(configMaps, configMap("lived", { a: "1" }));
        const changed = (await merge(`${configMaps}/lived`, { data: { a: "2" } })).json;
        await send(`${configMaps}/lived`, { method: "DELETE" });
        const events = await watch.until(({ type }) => type === "DELETED");
        expect(types(events)).toEqual(["ADDED", "MODIFIED", "DELETED"]);
        for (const { object } of events) expect([object.kind, object.apiVersion]).toEqual(["ConfigMap", "v1"]);
        expect(events[2]!.object.data).toEqual({ a: "2" });
        expect(BigInt(events[2]!.object.metadata.resourceVersion)).toBeGreaterThan(
          BigInt(changed.metadata.resourceVersion),
        );
        using again = await client.watch(`${configMaps}?watch=1&resourceVersion=${from}&${named("lived")}`);
        expect(await again.until(({ type }) => type === "DELETED")).toEqual(events);
      });

      test("an object that enters or leaves the selection is ADDED or DELETED", async () => {
        await create(configMaps, configMap("mover", { a: "1" }));
        using watch = await client.watch(
          `${configMaps}?watch=1&resourceVersion=${await revisionNow()}&labelSelector=inside`,
        );
        await merge(`${configMaps}/mover`, { metadata: { labels: { inside: "yes" } } });
        const left = (await merge(`${configMaps}/mover`, { metadata: { labels: { inside: null } }, data: { a: "2" } }))
          .json;
        const [entered, gone] = await watch.until(({ type }) => type === "DELETED");
        expect([entered!.type, gone!.type]).toEqual(["ADDED", "DELETED"]);
        expect([gone!.object.data.a, gone!.object.metadata.labels, gone!.object.metadata.resourceVersion]).toEqual([
          "1",
          { inside: "yes" },
          left.metadata.resourceVersion,
        ]);
      });

      test("without a revision, or from 0: what is there is ADDED, then it goes on", async () => {
        await create(configMaps, configMap("standing"));
        for (const query of ["watch=1", "watch=true&resourceVersion=0"]) {
          using watch = await client.watch(`${configMaps}?${query}&${named("standing")}`);
          expect((await watch.next()).type).toBe("ADDED");
          await merge(`${configMaps}/standing`, { data: { at: randomBytes(4).toString("hex") } });
          expect((await watch.next()).type).toBe("MODIFIED");
        }
      });

      test("a streaming list ends its initial events with an annotated bookmark", async () => {
        using watch = await client.watch(
          `${configMaps}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`,
        );
        const events = await watch.until(({ type }) => type === "BOOKMARK");
        const listed = (await client.get(configMaps)).json.items.map((item: any) => item.metadata.name);
        expect(events.slice(0, -1).map(({ type, object }) => [type, object.metadata.name])).toEqual(
          listed.map((title: string) => ["ADDED", title]),
        );
        expect(events.at(-1)!.object).toEqual({
          kind: "ConfigMap",
          apiVersion: "v1",
          metadata: {
            resourceVersion: expect.stringMatching(/^\d+$/),
            annotations: { "k8s.io/initial-events-end": "true" },
          },
        });
        await merge(`${configMaps}/standing`, { data: { at: "after" } });
        expect((await watch.next()).type).toBe("MODIFIED");
      });

      test("bookmarks of pods and of custom resources have the kind's empty form", async () => {
        const end = async (path: string) => {
          using watch = await client.watch(
            `${path}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`,
          );
          return (await watch.until(({ type }) => type === "BOOKMARK")).at(-1)!.object;
        };
        expect(await end(`${root}/pods`)).toMatchObject({ kind: "Pod", spec: { containers: null }, status: {} });
        expect(await end(gizmos)).toEqual({
          apiVersion: `${crdGroup}/v1`,
          kind: "Gizmo",
          metadata: { annotations: { "k8s.io/initial-events-end": "true" }, resourceVersion: expect.any(String) },
        });
      });

      test("a streaming list without initial events is a plain watch", async () => {
        using watch = await client.watch(
          `${configMaps}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&${named("standing")}`,
        );
        await merge(`${configMaps}/standing`, { data: { at: randomBytes(4).toString("hex") } });
        expect((await watch.next()).type).toBe("MODIFIED");
      });

      test("a streaming list ahead of the server ends with an ERROR event of 504", async () => {
        using watch = await client.watch(
          `${configMaps}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=999999999&allowWatchBookmarks=true`,
        );
        expect(await watch.next()).toMatchObject({
          type: "ERROR",
          object: {
            kind: "Status",
            code: 504,
            reason: "Timeout",
            details: { causes: [{ reason: "ResourceVersionTooLarge" }] },
          },
        });
      }, 30_000);

      test("a plain watch ahead of the server is held open in silence", async () => {
        using watch = await client.watch(`${configMaps}?watch=1&resourceVersion=999999999&timeoutSeconds=1`);
        await create(configMaps, configMap(`ahead-${randomBytes(3).toString("hex")}`));
        expect([watch.status, await watch.rest()]).toEqual([200, []]);
      });

      test("timeoutSeconds ends a watch cleanly, a bookmark comes before the end", async () => {
        using watch = await client.watch(
          `${configMaps}?watch=1&resourceVersion=${await revisionNow()}&allowWatchBookmarks=true&timeoutSeconds=4&${named("nothing")}`,
        );
        // without a change since the watch began the real server sends none
        await create(configMaps, configMap("unwatched"));
        const events = await watch.rest();
        expect([...new Set(types(events))]).toEqual(["BOOKMARK"]);
        expect(events.at(-1)!.object.metadata.annotations).toBeUndefined();
      }, 15_000);

      test.each([
        ["sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"],
        [
          "sendInitialEvents=true&resourceVersionMatch=Exact",
          422,
          "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ],
        [
          "resourceVersionMatch=NotOlderThan",
          422,
          "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ],
        ["labelSelector=a%20in", 400, "unable to parse requirement"],
        ["fieldSelector=foo%3Dbar", 400, '"foo" is not a known field selector'],
        ["resourceVersion=abc", 500, 'resourceVersion: Invalid value: "abc"'],
      ])("a watch with %s is refused", async (query, code, message) => {
        const { status, json } = await client.get(`${configMaps}?watch=1&${query}`);
        expect(status).toBe(code);
        expect(json.message).toContain(message);
      });

      test("Table and PartialObjectMetadata", async () => {
        const query = `watch=1&resourceVersion=0&timeoutSeconds=1&${named("made")}`;
        using tables = await client.watch(`${configMaps}?${query}`, { accept: TABLE });
        expect((await tables.next()).object).toMatchObject({
          kind: "Table",
          columnDefinitions: expect.any(Array),
          rows: [{ object: { kind: "PartialObjectMetadata", metadata: { name: "made" } } }],
        });
        using partials = await client.watch(`${configMaps}?${query}`, { accept: PARTIAL });
        expect((await partials.next()).object).toMatchObject({
          kind: "PartialObjectMetadata",
          metadata: { name: "made" },
        });
      });

      test("watch=yes is a watch, watch=False a list, and beside a name in the path it means nothing", async () => {
        using watch = await client.watch(`${configMaps}?watch=yes&timeoutSeconds=1&${named("made")}`);
        expect((await watch.next()).type).toBe("ADDED");
        expect((await client.get(`${configMaps}?watch=False`)).json.kind).toBe("ConfigMapList");
        expect((await client.get(`${configMaps}/made?watch=true`)).json.kind).toBe("ConfigMap");
      });

      test("only the first event of a Table watch carries the columns", async () => {
        await create(configMaps, configMap("tabled"));
        using watch = await client.watch(`${configMaps}?watch=1&resourceVersion=0&${named("tabled")}`, {
          accept: TABLE,
        });
        const first = await watch.next();
        await merge(`${configMaps}/tabled`, { data: { a: "1" } });
        const second = await watch.next();
        expect([Array.isArray(first.object.columnDefinitions), second.object.columnDefinitions]).toEqual([true, null]);
      });

      test("a custom resource's events", async () => {
        using watch = await client.watch(`${gizmos}?watch=1&resourceVersion=0&${named("ordered")}`);
        expect(await watch.next()).toMatchObject({
          type: "ADDED",
          object: { kind: "Gizmo", apiVersion: `${crdGroup}/v1` },
        });
      });

      test("a gzipped streaming list is one gzip member a flush; a plain watch is never gzipped", async () => {
        const query = `watch=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1`;
        const zipped = await client.get(`${configMaps}?${query}`, { "accept-encoding": "gzip" });
        expect(zipped.headers["content-encoding"]).toBe("gzip");
        expect(zipped.text.trim().split("\n").at(-1)).toContain("k8s.io/initial-events-end");
        const plain = await client.get(`${configMaps}?watch=1&resourceVersion=0&timeoutSeconds=1`, {
          "accept-encoding": "gzip",
        });
        expect(plain.headers["content-encoding"]).toBeUndefined();
      });
    });
  });
}

function definition(group: string): unknown {
  const schema = {
    openAPIV3Schema: {
      type: "object",
      properties: {
        spec: { type: "object", properties: { size: { type: "integer" } } },
        status: { type: "object", properties: { state: { type: "string" } } },
      },
    },
  };
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `gizmos.${group}` },
    spec: {
      group,
      scope: "Namespaced",
      names: { plural: "gizmos", singular: "gizmo", kind: "Gizmo", listKind: "GizmoList" },
      versions: [{ name: "v1", served: true, storage: true, schema, subresources: { status: {} } }],
    },
  };
}

const gizmo = (group: string, title: string) => ({
  apiVersion: `${group}/v1`,
  kind: "Gizmo",
  metadata: { name: title },
  spec: { size: 1 },
});

/** Objects beside pods and their configuration, as small as the API server takes them. */
function nodeResources(id: string, namespace: string) {
  const metadata = { name: `contract-${id}` };
  const rows = [
    {
      kind: "PersistentVolume",
      path: "/api/v1/persistentvolumes",
      spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: "/srv/volume" } },
    },
    {
      kind: "PersistentVolumeClaim",
      path: `/api/v1/namespaces/${namespace}/persistentvolumeclaims`,
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } }, storageClassName: "none" },
    },
    {
      kind: "VolumeAttachment",
      path: "/apis/storage.k8s.io/v1/volumeattachments",
      spec: { attacher: "csi.example.com", source: { persistentVolumeName: "some" }, nodeName: "some-node" },
    },
    {
      kind: "ResourceClaim",
      path: `/apis/resource.k8s.io/v1/namespaces/${namespace}/resourceclaims`,
      spec: {
        devices: {
          requests: [
            {
              name: "gpu",
              exactly: { deviceClassName: "gpu.example.com", allocationMode: "ExactCount", count: 1 },
            },
          ],
        },
      },
    },
    {
      kind: "ResourceSlice",
      path: "/apis/resource.k8s.io/v1/resourceslices",
      spec: resourceSlice("", "some-node").spec,
    },
    { kind: "ClusterTrustBundle", path: "/apis/certificates.k8s.io/v1/clustertrustbundles", spec: {} },
  ];
  return rows.map(({ kind, path, spec }) => [kind, { kind, path, object: { metadata, spec } }] as const);
}

function resourceSlice(name: string, nodeName: string) {
  const pool = { name: nodeName, generation: 1, resourceSliceCount: 1 };
  return { metadata: { name }, spec: { driver: "gpu.example.com", pool, nodeName, devices: [{ name: "gpu-0" }] } };
}
