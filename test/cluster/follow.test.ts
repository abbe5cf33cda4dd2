/**
 * Follows as client-go's reflector does, against a scripted API server.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { ApiError, type Collections, type WatchEvent } from "../../src/cluster/api.ts";
import { follow } from "../../src/cluster/follow.ts";
import { ManualClock } from "../support/model.ts";

/** What one watch says before it ends, with an error or without. */
interface Script {
  readonly events: readonly WatchEvent[];
  readonly error?: ApiError;
}

const GONE = new ApiError("too old", 410, "Expired");
const BROKEN = new ApiError("broken", 0, "");

const lease = (name: string, version: number) => ({ metadata: { name, resourceVersion: String(version) } });
const event = (type: WatchEvent["type"], name: string, version: number): WatchEvent => ({
  type,
  object: lease(name, version),
});

let clock: ManualClock;
let stop: AbortController;
let anew: AbortController;
/** "list", "watch VERSION", and what was told. */
let said: string[];
let lists: (readonly [version: number, ...names: string[]])[];
let scripts: Script[];
/** The version at which the collection stands now. */
let stands: number;

beforeEach(() => {
  clock = new ManualClock();
  stop = new AbortController();
  anew = new AbortController();
  said = [];
  lists = [[10, "a", "b"]];
  scripts = [];
  stands = 1_000;
});
afterEach(() => stop.abort());

const client = {
  async list(_path: string, { limit }: { limit: number }) {
    if (limit === 1) {
      said.push("check");
      return { items: [], resourceVersion: String(stands), next: undefined, sizeBytes: 0 };
    }
    said.push("list");
    const [version, ...names] = lists.length > 1 ? lists.shift()! : lists[0]!;
    return {
      items: names.map((name) => lease(name, version)),
      resourceVersion: String(version),
      next: undefined,
      sizeBytes: 0,
    };
  },
  async *watch(_path: string, version: string, signal: AbortSignal) {
    said.push(`watch ${version}`);
    const script = scripts.shift();
    yield* script?.events ?? [];
    if (script?.error !== undefined) throw script.error;
    if (script !== undefined) return;
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  },
} as unknown as Collections;

async function run(): Promise<void> {
  start();
  await clock.pass(60_000);
}

function start(): void {
  const kept = new Set<string>();
  let listed = new Set<string>();
  let isListing = false;
  const nameOf = (object: unknown) => (object as { metadata: { name: string } }).metadata.name;
  void follow({
    client,
    clock,
    log: silentLog,
    signal: stop.signal,
    what: "leases",
    path: "/leases",
    anew: () => anew.signal,
    random: () => 0,
    wentBack: () => said.push("went back"),
    listing: () => {
      listed = new Set();
      isListing = true;
    },
    put: (object) => {
      const name = nameOf(object);
      kept.add(name);
      if (isListing) listed.add(name);
      else said.push(`put ${name}`);
    },
    listed: () => {
      isListing = false;
      for (const name of kept) if (!listed.has(name)) said.push(`lost ${name}`);
    },
    gone: (object) => said.push(`gone ${nameOf(object)}`),
  });
}

describe("following", () => {
  test("a watch that breaks goes on after the last event it told, and not where it began", async () => {
    scripts = [
      { events: [event("MODIFIED", "a", 11), event("DELETED", "b", 12)], error: BROKEN },
      { events: [event("ADDED", "c", 13)], error: BROKEN },
    ];
    await run();
    expect(said).toEqual(["list", "watch 10", "put a", "gone b", "check", "watch 12", "put c", "check", "watch 13"]);
  });

  test("a bookmark moves the place along, also where the watch then ends in order", async () => {
    scripts = [{ events: [event("BOOKMARK", "", 40)], error: BROKEN }, { events: [event("BOOKMARK", "", 50)] }];
    await run();
    expect(said).toEqual(["list", "watch 10", "check", "watch 40", "watch 50"]);
  });

  test("a version that is known no more is listed anew; what the list lacks is gone", async () => {
    lists = [
      [10, "a", "b"],
      [90, "b", "c"],
    ];
    scripts = [{ events: [event("MODIFIED", "a", 11)], error: GONE }];
    await run();
    expect(said).toEqual(["list", "watch 10", "put a", "list", "lost a", "watch 90"]);
  });

  test("a watch that told something before it broke is begun again soon, one that never does later and later", async () => {
    const broken = { events: [], error: BROKEN };
    scripts = [broken, broken, broken, broken, { events: [event("MODIFIED", "a", 11)], error: BROKEN }];
    start();
    // 250, 500, 1,000, 2,000 ms with this draw; after the event 250 again.
    await clock.pass(3_740);
    const watched = () => said.filter((one) => one !== "check");
    expect(watched()).toEqual(["list", "watch 10", "watch 10", "watch 10", "watch 10"]);
    await clock.pass(20);
    expect(watched().slice(5)).toEqual(["watch 10", "put a"]);
    await clock.pass(250);
    expect(watched().slice(7)).toEqual(["watch 11"]);
  });

  test("told to begin anew it lists, and what the old watch still says counts no more", async () => {
    lists = [
      [10, "a"],
      [5, "a"],
    ];
    scripts = [
      {
        events: [
          event("MODIFIED", "a", 11),
          {
            type: "MODIFIED",
            get object() {
              // The history went back while this event was on its way.
              const old = anew;
              anew = new AbortController();
              old.abort();
              return lease("late", 12);
            },
          },
        ],
      },
    ];
    await run();
    expect(said).toEqual(["list", "watch 10", "put a", "list", "watch 5"]);
  });

  test("a cluster that was set back while the watch was broken is listed anew, and told to the others", async () => {
    lists = [
      [10, "a"],
      [8, "a"],
    ];
    stands = 8;
    scripts = [{ events: [event("MODIFIED", "a", 11)], error: BROKEN }];
    await run();
    expect(said).toEqual(["list", "watch 10", "put a", "check", "went back", "list", "watch 8"]);
  });
});
