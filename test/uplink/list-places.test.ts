/**
 * Few lists are read at once, and the node's own wait for nobody.
 */

import { expect, test } from "bun:test";
import { PlacedLists } from "../../src/uplink/list-places.ts";
import type { ListPage } from "../../src/uplink/scope-source.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { HandClock } from "../store/support.ts";
import { eventually } from "../support/client.ts";
import { CONFIG_MAPS, ModelServer } from "../support/model.ts";

const identityOf = (principal: string) =>
  ({
    ...CONFIG_MAPS,
    principal,
    namespace: "",
    labelSelector: "",
    fieldSelector: "",
    representation: "json",
  }) as ScopeIdentity;
const PAGE = { limit: 500, continueToken: "" };

async function read(page: ListPage): Promise<void> {
  for await (const _ of page.batches);
}

function setUp() {
  const server = new ModelServer();
  server.put("a", "1");
  const clock = new HandClock();
  const lists = new PlacedLists(server, (principal) => principal === "node", clock);
  const pages: ListPage[] = [];
  const ask = (principal: string, signal = new AbortController().signal) => {
    const asked = lists.list(identityOf(principal), PAGE, signal);
    asked.then(
      (page) => pages.push(page),
      () => {},
    );
    return asked;
  };
  return { server, clock, pages, ask };
}

test("eight lists at once, the next when one has been read or was refused; the node's goes between", async () => {
  const { server, pages, ask } = setUp();
  for (let n = 0; n < 20; n++) void ask("a");
  await eventually(() => pages.length === 8);
  await ask("node");
  expect(server.lists).toBe(9);
  for (const page of pages.slice(0, 3)) await read(page);
  await eventually(() => server.lists === 12);
  server.refuse = { status: 403, reason: "Forbidden" };
  const last = ask("a");
  for (const page of pages.slice(3)) await read(page);
  await expect(last).rejects.toThrow();
  server.refuse = undefined;
  for (let n = 0; n < 8; n++) await ask("b");
  expect(pages.length).toBeGreaterThanOrEqual(20);
});

test("who leaves waits no more, and a list that takes long keeps nobody waiting", async () => {
  const { server, clock, pages, ask } = setUp();
  for (let n = 0; n < 8; n++) await ask("a");
  const controller = new AbortController();
  const leaving = ask("b", controller.signal);
  const waiting = ask("c");
  controller.abort(new Error("no longer used"));
  await expect(leaving).rejects.toThrow("no longer used");
  expect(server.lists).toBe(8);
  clock.pass(10_000);
  await waiting;
  for (const page of pages) await read(page);
  for (let n = 0; n < 8; n++) await ask("d");
  const ninth = ask("d", AbortSignal.abort(new Error("gone")));
  await expect(ninth).rejects.toThrow("gone");
  expect(server.lists).toBe(17);
});
