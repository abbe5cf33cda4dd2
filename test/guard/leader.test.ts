/**
 * One writer at a time, by a Lease, without comparing clocks.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { ApiError } from "../../src/cluster/api.ts";
import { Leader } from "../../src/guard/leader.ts";
import { ManualClock } from "../support/model.ts";
import { MemoryApi } from "./support.ts";

const LEASE = "/apis/coordination.k8s.io/v1/namespaces/holdfast-system/leases/holdfast-guard";

let clock: ManualClock;
let api: MemoryApi;

beforeEach(() => {
  clock = new ManualClock();
  api = new MemoryApi();
});

function candidate(identity: string, view: MemoryApi = api) {
  const stop = new AbortController();
  const leader = new Leader({
    api: view,
    clock,
    log: silentLog,
    namespace: "holdfast-system",
    name: "holdfast-guard",
    identity,
    signal: stop.signal,
  });
  const ended = leader.run();
  return {
    leader,
    stop: async () => {
      stop.abort();
      await ended;
    },
  };
}

const holder = () => (api.objects.get(LEASE)?.["spec"] as { holderIdentity: string } | undefined)?.holderIdentity;

describe("the leader", () => {
  test("is one of three, and stays", async () => {
    const candidates = ["a", "b", "c"].map((identity) => candidate(identity));
    await clock.pass(3_000);
    expect(candidates.filter(({ leader }) => leader.isLeader).length).toBe(1);
    const first = holder();
    await clock.pass(60_000);
    expect([holder(), candidates.filter(({ leader }) => leader.isLeader).length]).toEqual([first, 1]);
    for (const { stop } of candidates) await stop();
  });

  test("that ends lets go: another leads within its retry", async () => {
    const [a, b] = [candidate("a"), candidate("b")];
    await clock.pass(3_000);
    expect(a.leader.isLeader).toBe(true);
    await a.stop();
    expect(a.leader.isLeader).toBe(false);
    await clock.pass(4_000);
    expect([b.leader.isLeader, holder()]).toEqual([true, "b"]);
    await b.stop();
  });

  test("that cannot renew steps down before another may step up", async () => {
    const cut = new MemoryApi();
    // Two views of the same objects, of which one can be cut off.
    Object.defineProperty(cut, "objects", { value: api.objects });
    const a = candidate("a", cut);
    await clock.pass(3_000);
    const b = candidate("b");
    cut.failure = new ApiError("cut", 0, "");
    for (let second = 0; second < 30; second++) {
      await clock.pass(1_000);
      expect(a.leader.isLeader && b.leader.isLeader).toBe(false);
    }
    expect([a.leader.isLeader, b.leader.isLeader, holder()]).toEqual([false, true, "b"]);
    await a.stop();
    await b.stop();
  });

  test("a lease of a clock in the far future is held no longer than any other", async () => {
    api.put(LEASE, {
      metadata: {},
      spec: { holderIdentity: "dead", renewTime: "2099-01-01T00:00:00.000000Z", leaseDurationSeconds: 15 },
    });
    const a = candidate("a");
    await clock.pass(13_000);
    expect(a.leader.isLeader).toBe(false);
    await clock.pass(6_000);
    expect([a.leader.isLeader, holder()]).toEqual([true, "a"]);
    await a.stop();
  });
});
