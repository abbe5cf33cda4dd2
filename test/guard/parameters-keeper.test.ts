/**
 * A ConfigMap that is deleted does not put the policies to sleep for long.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { LiveView } from "../../src/guard/live-view.ts";
import { DEFAULT_PARAMETERS } from "../../src/guard/parameters.ts";
import { ParametersKeeper } from "../../src/guard/parameters-keeper.ts";
import { ManualClock } from "../support/model.ts";
import { MemoryApi } from "./support.ts";

const PATH = "/api/v1/namespaces/holdfast-system/configmaps/holdfast-guard";
const METADATA = {
  namespace: "holdfast-system",
  labels: { team: "edge" },
  annotations: { "meta.helm.sh/release": "h" },
};

let clock: ManualClock;
let api: MemoryApi;
let stop: AbortController;
let view: LiveView;
let keeper: ParametersKeeper;

beforeEach(() => {
  clock = new ManualClock();
  api = new MemoryApi();
  stop = new AbortController();
});
afterEach(() => stop.abort());

async function begin(): Promise<void> {
  view = new LiveView({ api, client: api, clock, log: silentLog, namespace: "holdfast-system", signal: stop.signal });
  keeper = new ParametersKeeper({ api, view, clock, log: silentLog, namespace: "holdfast-system" });
  void view.start();
  for (let round = 0; round < 50 && !view.isSynced; round++) await clock.pass(1);
}

async function live(seconds: number, isLeader = true): Promise<void> {
  for (let second = 0; second < seconds; second += 5) {
    await keeper.round(isLeader);
    await clock.pass(5_000);
  }
}

test("it is put back as it was, with what others had written on it", async () => {
  api.put(PATH, { metadata: METADATA, data: { bound: "72h", "bound.gw-1": "0" } });
  await begin();
  api.remove(PATH);
  await live(25);
  expect(api.objects.get(PATH)).toBeUndefined();
  await live(15);
  expect(api.objects.get(PATH)).toMatchObject({ metadata: METADATA, data: { bound: "72h", "bound.gw-1": "0" } });
  expect([view.hasParameters, view.parameters.bound]).toEqual([true, 72 * 3_600_000]);
});

test("a guard that never saw it puts the defaults there", async () => {
  await begin();
  await live(40);
  expect(api.objects.get(PATH)).toMatchObject({ data: DEFAULT_PARAMETERS });
});

test("not by one that does not lead, not where it is replaced, and not over another's", async () => {
  api.put(PATH, { metadata: METADATA, data: { bound: "72h" } });
  await begin();
  api.remove(PATH);
  await live(60, false);
  expect(api.asked.filter((asked) => asked.startsWith("POST"))).toEqual([]);
  api.put(PATH, { data: { bound: "1h" } });
  await live(10);
  api.remove(PATH);
  await live(20);
  api.put(PATH, { data: { bound: "2h" } });
  await live(60);
  expect(api.objects.get(PATH)).toMatchObject({ data: { bound: "2h" } });
});
