import { describe, expect, test } from "bun:test";
import { Scopes } from "../../src/cache/scopes.ts";
import { lastPodUids, podUids } from "../../src/node/own-pods.ts";
import { ModelServer, settle, startModel } from "../support/model.ts";

const OWN = { principal: "certificate:system:node:edge1|system:nodes", name: "edge1" };
const ALL = "spec.nodeName=edge1";

/** Copies of pods as clients of the node opened them, in this order; each holds what its server says. */
async function copiesOf(asked: readonly { readonly selector?: Partial<Selector>; readonly pods: readonly string[] }[]) {
  const { parts, link } = startModel();
  const servers = new Map<string, ModelServer>();
  const source: typeof parts.source = Object.assign(Object.create(parts.source), {
    list: (identity: Selector) => servers.get(keyOf(identity))!.list(),
    watch: (identity: Selector, ...rest: unknown[]) =>
      (servers.get(keyOf(identity))!.watch as (...args: unknown[]) => unknown)(identity, ...rest),
  });
  const scopes = new Scopes({ ...parts, source }, { retentionMs: 1e9, maxScopes: 10 });
  for (const { selector, pods } of asked) {
    const server = new ModelServer();
    for (const name of pods) server.put(name, "1");
    const identity = { ...OWN_PODS, ...selector };
    servers.set(keyOf(identity), server);
    await scopes.open(identity)!.ensureFresh();
    await settle();
  }
  return { scopes, link };
}

const OWN_PODS = {
  principal: OWN.principal,
  group: "",
  version: "v1",
  resource: "pods",
  namespace: "",
  fieldSelector: ALL,
  labelSelector: "",
  representation: "json",
};
type Selector = typeof OWN_PODS;
const keyOf = ({ namespace, fieldSelector, labelSelector }: Selector) =>
  `${namespace}|${fieldSelector}|${labelSelector}`;

describe("which pods the node has", () => {
  test.each<{ readonly what: string; readonly selector: Partial<Selector> }>([
    { what: "one pod by name", selector: { fieldSelector: "metadata.name=web-0" } },
    { what: "another node's", selector: { fieldSelector: "spec.nodeName=edge11" } },
    { what: "a part of its own", selector: { fieldSelector: `${ALL},status.phase=Running` } },
    { what: "a label's", selector: { labelSelector: "app=web" } },
    { what: "one namespace's", selector: { namespace: "shop" } },
    { what: "another caller's", selector: { principal: "token:x" } },
  ])("is never told by a copy of $what, though it came first", async ({ selector }) => {
    const part = await copiesOf([{ selector, pods: ["web-0"] }]);
    expect(podUids(part.scopes, OWN)).toBeUndefined();
    expect(lastPodUids(part.scopes, OWN)).toBeUndefined();
    part.scopes.close();

    const both = await copiesOf([{ selector, pods: [] }, { pods: ["web-0", "job-0"] }]);
    expect(podUids(both.scopes, OWN)?.size).toBe(2);
    expect(lastPodUids(both.scopes, OWN)?.size).toBe(2);
    both.scopes.close();
  });

  test("is told by a followed copy alone where something is dropped for it, and by the last word otherwise", async () => {
    const { scopes, link } = await copiesOf([{ pods: ["web-0"] }]);
    expect(podUids(scopes, OWN)?.size).toBe(1);
    link.turn(false);
    expect(podUids(scopes, OWN)).toBeUndefined();
    expect(lastPodUids(scopes, OWN)?.size).toBe(1);
    scopes.close();
  });
});
