/**
 * A caller that asks with ever new selectors: so many of its scopes are
 * followed, the rest is forwarded, and nobody else loses anything by it.
 */

import { describe, expect, test } from "bun:test";
import { CONFIG_MAPS, settle, startModel } from "../support/model.ts";
import { Scopes } from "../../src/cache/scopes.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";

const POD: ScopeIdentity = {
  ...CONFIG_MAPS,
  principal: "serviceaccount:shop/web",
  namespace: "shop",
  fieldSelector: "",
  labelSelector: "",
  representation: "json",
};
const NODE = "certificate:system:node:edge-1";

function start() {
  const model = startModel();
  const scopes = new Scopes(model.parts, { retentionMs: 1e9, maxScopes: 2_000, ownPrincipal: () => NODE });
  return { ...model, scopes };
}

/** Lists each; how many scopes are followed then. */
async function followed(scopes: Scopes, identities: readonly ScopeIdentity[]): Promise<number> {
  for (const identity of identities) {
    scopes
      .open(identity)
      ?.ensureFresh()
      .catch(() => {});
    await settle();
  }
  return [...scopes.all()].filter(({ isFollowing }) => isFollowing).length;
}

const selections = (count: number, principal = POD.principal) =>
  Array.from({ length: count }, (_, n) => ({ ...POD, principal, labelSelector: `a!=${n}` }));
const namespaces = (count: number, from = 0, principal = POD.principal) =>
  Array.from({ length: count }, (_, n) => ({ ...POD, principal, namespace: `ns-${from + n}` }));

describe("scopes of one caller", () => {
  test("of one collection 64 selections are followed; one of these is found again, and another caller has its own", async () => {
    const { scopes } = start();
    expect(await followed(scopes, selections(80))).toBe(64);
    expect(scopes.open(selections(1)[0]!)?.isFollowing).toBe(true);
    expect(await followed(scopes, selections(80, "serviceaccount:shop/other"))).toBe(128);
    expect(await followed(scopes, [{ ...POD, fieldSelector: "metadata.name=one" }])).toBe(129);
  });

  test("of long selections fewer are", async () => {
    const { scopes, server } = start();
    for (let n = 0; n < 900; n++) server.put(`map-${n}`, "1");
    expect(await followed(scopes, selections(80))).toBe(51);
  });

  test("128 are followed that nobody watches; later the one unused longest makes room, and keeps its rows", async () => {
    const { scopes, clock } = start();
    expect(await followed(scopes, namespaces(140))).toBe(128);
    await clock.pass(3_000);
    const first = scopes.find(namespaces(1)[0]!)!;
    expect(await followed(scopes, namespaces(1, 200))).toBe(128);
    expect(first.isFollowing).toBe(false);
    expect(first.listed).toBeDefined();
  });

  test("the node's are not counted", async () => {
    const { scopes } = start();
    expect(await followed(scopes, namespaces(140, 0, NODE))).toBe(140);
    expect(await followed(scopes, selections(40, NODE))).toBe(180);
  });
});
