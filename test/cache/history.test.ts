import type { ObjectFrame } from "../../src/cache/frames.ts";
import { describe, expect, test } from "bun:test";
import { Difference } from "../../src/cache/difference.ts";
import { History, isNextBookmark, isNextEvent, type Vouch } from "../../src/cache/history.ts";
import type { Item } from "../../src/kube/codec.ts";
import { codecFor } from "../../src/kube/representation.ts";
import type { ListChange, ListedState } from "../../src/store/contract.ts";

const BOUNDS = { ringMaxEvents: 3, ringMaxBytes: 1e6 };
const codec = codecFor("application/json")!;
const shape = { listKind: "ConfigMapList", apiVersion: "v1", isBare: true };

const listed = (fields: Partial<ListedState>): ListedState => ({
  shape,
  contentType: "application/json",
  resourceVersion: "120",
  changedAt: "110",
  epoch: "100",
  isPartlyTold: false,
  lastContactMs: 0,
  ...fields,
});

describe("a history vouches for", () => {
  /** Rows at 120 since a list at 100; events at 104 to 118, of which the ring holds the last three. */
  const history = (isTold: boolean) => {
    const made = new History(BOUNDS, listed({ changedAt: "90", isPartlyTold: isTold }));
    for (const at of ["104", "110", "114", "118"])
      made.ring.append({ type: "BOOKMARK", resourceVersion: at, isInitialEventsEnd: false });
    return made;
  };
  const TABLE: readonly (readonly [string, string, Vouch, Vouch])[] = [
    ["where the rows stand", "120", "yes", "yes"],
    ["between the last event and a bookmark", "119", "yes", "yes"],
    ["an event in the ring", "110", "yes", "yes"],
    ["the floor: the last event that fell out", "104", "yes", "yes"],
    ["below the floor", "103", "ask upstream", "ask upstream"],
    ["the last list, below the floor", "100", "ask upstream", "ask upstream"],
    ["just below the last list", "99", "ask upstream", "relist"],
    ["far below it", "9", "ask upstream", "relist"],
    ["ahead of the rows", "121", "ask upstream", "ask upstream"],
    ["far ahead of the rows", "1000", "ask upstream", "ask upstream"],
    ["one of ours", "5000000001048577", "relist", "relist"],
  ];
  for (const [what, at, untold, told] of TABLE)
    test(`${what}: ${untold}; ${told} after a difference was told`, () => {
      expect(history(false).vouchesFor(at, listed({}))).toBe(untold);
      expect(history(true).vouchesFor(at, listed({}))).toBe(told);
    });

  test("the epoch it tells a difference up to, and nothing below it, until its history went back", () => {
    const history = new History(BOUNDS, listed({}));
    history.tell("130");
    const after = listed({ resourceVersion: "130", epoch: "130" });
    expect(["129", "130"].map((at) => history.vouchesFor(at, after))).toEqual(["relist", "yes"]);
    expect(history.isTold).toBe(true);
    history.startOver("70");
    const restored = listed({ resourceVersion: "70", epoch: "70" });
    expect(["69", "70"].map((at) => history.vouchesFor(at, restored))).toEqual(["relist", "yes"]);
  });

  test("nothing but where the rows stand, when nobody was told how they were replaced", () => {
    const history = new History(BOUNDS, listed({}));
    history.startOver("130");
    const after = listed({ resourceVersion: "130", epoch: "130" });
    expect(["120", "130"].map((at) => history.vouchesFor(at, after))).toEqual(["ask upstream", "yes"]);
    expect(history.isTold).toBe(false);
  });
});

describe("a history that replays an older moment", () => {
  test("goes on where it was, and is done where the rows stood", () => {
    const history = new History(BOUNDS, listed({}));
    history.beginReplay("95", "120");
    expect(history.nextFrom("120")).toBe("95");
    expect(["101", "120", "121"].map((at) => history.placeOf(at, "120"))).toEqual(["replayed", "replayed", "new"]);
    history.passed("101");
    expect(history.nextFrom("120")).toBe("101");
    expect(history.isReplaying).toBe(true);
    history.passed("122");
    expect(history.isReplaying).toBe(false);
    expect(history.nextFrom("122")).toBe("122");
    expect(history.placeOf("101", "122")).toBe("known");
  });

  test("promises nothing below the last change once the API server has forgotten the moment", () => {
    const history = new History(BOUNDS, listed({}));
    history.beginReplay("101", "120");
    expect(history.vouchesFor("101", listed({}))).toBe("yes");
    expect(history.giveUpReplay("110")).toBe("110");
    expect(history.vouchesFor("101", listed({}))).toBe("ask upstream");
    expect(history.vouchesFor("110", listed({}))).toBe("yes");
  });
});

test("a watch's events grow, and its bookmarks may repeat where it stands", () => {
  const next = (at: string) => [isNextEvent(at, "99"), isNextBookmark(at, "99")];
  expect(["98", "99", "100"].map(next)).toEqual([
    [false, false],
    [false, true],
    [true, true],
  ]);
});

describe("a difference is told in steps that only the last of which is the list's moment:", () => {
  const item = (name: string, at: string, uid = name): Item => ({
    meta: { namespace: "shop", name, uid, resourceVersion: at },
    bytes: Buffer.from(`{"metadata":{"name":"${name}","namespace":"shop","uid":"${uid}","resourceVersion":"${at}"}}`),
  });
  const put = (type: "ADDED" | "MODIFIED", name: string, at: string): ListChange => ({ type, item: item(name, at) });
  const gone = (name: string, at: string): ListChange => ({ type: "DELETED", old: item(name, at) });

  const CASES: readonly (readonly [string, readonly ListChange[], string, readonly string[], boolean])[] = [
    ["nothing changed", [], "110", [], true],
    ["one object changed", [put("MODIFIED", "b", "104")], "110", ["MODIFIED b@104"], true],
    ["one object is gone", [gone("a", "90")], "110", ["DELETED a@110"], true],
    ["one object is gone, in the very next write", [gone("a", "90")], "101", ["DELETED a@101"], true],
    [
      "changes, then deletions",
      [put("MODIFIED", "b", "104"), gone("a", "90"), gone("d", "91")],
      "110",
      ["MODIFIED b@104", "DELETED a@109", "DELETED d@110"],
      true,
    ],
    [
      "a name that changed hands",
      [gone("c", "80"), put("ADDED", "c", "107"), gone("a", "90")],
      "110",
      ["DELETED c@106", "ADDED c@107", "DELETED a@110"],
      true,
    ],
    [
      "a change at the list's own moment",
      [put("MODIFIED", "b", "110"), gone("a", "90"), gone("d", "91")],
      "110",
      ["DELETED a@109", "DELETED d@109", "MODIFIED b@110"],
      true,
    ],
    [
      "two changes at one moment",
      [put("MODIFIED", "a", "104"), put("MODIFIED", "b", "104")],
      "110",
      ["MODIFIED a@104"],
      false,
    ],
    ["two changes at the list's moment", [put("MODIFIED", "a", "110"), put("MODIFIED", "b", "110")], "110", [], false],
    ["more deletions than there were writes", [gone("a", "90"), gone("b", "91")], "101", [], false],
    ["a change that is older than the rows", [put("MODIFIED", "a", "99")], "110", [], false],
    ["an object without a resourceVersion", [gone("a", "90"), put("ADDED", "a", "")], "110", [], false],
  ];
  for (const [what, changes, epoch, frames, isTellable] of CASES)
    test(what, () => {
      const sent: string[] = [];
      const send = ({ type, item }: ObjectFrame) => {
        const { metadata } = JSON.parse(Buffer.from(item.bytes).toString("utf8"));
        expect(metadata.resourceVersion).toBe(item.meta.resourceVersion);
        sent.push(`${type} ${metadata.name}@${metadata.resourceVersion}`);
      };
      const difference = new Difference({ codec, before: "100", epoch, send });
      for (const change of changes) difference.add(change);
      expect(difference.end()).toBe(isTellable);
      expect(sent).toEqual([...frames]);
    });
});
