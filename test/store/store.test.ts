import { describe, expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Item } from "../../src/kube/codec.ts";
import { message, text, varint } from "../../src/kube/protobuf-wire.ts";
import type { Copy, ScopeIdentity } from "../../src/store/contract.ts";
import { CopyDroppedError, ScopeDamagedError, SnapshotGoneError } from "../../src/store/errors.ts";
import {
  Bench,
  PODS,
  SECRETS,
  SHAPE,
  contentOf,
  item,
  list,
  listedScope,
  numbered,
  spoken,
  keptIn,
} from "./support.ts";

describe("a scope", () => {
  test("is found again by its identity, and nothing of it is served before a list", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = store.openCopy(PODS, 5);
    expect(store.openCopy({ ...PODS }, 9)).toBe(copy);
    expect(store.openCopy({ ...PODS, labelSelector: "app=web" }, 9)).not.toBe(copy);
    copy.put(item("a", 7), "7", 1);
    expect(copy.listed).toBeUndefined();
    expect(copy.snapshot()).toBeUndefined();
    expect(copy.get("shop", "a")).toBeUndefined();
  });

  test("observed empty is knowledge and outlives a restart", () => {
    using bench = new Bench();
    const store = bench.open();
    listedScope(store, [], 41);
    store.close();
    const again = bench.open();
    const [scope] = again.copies();
    expect(scope).toMatchObject({
      identity: PODS,
      listed: { resourceVersion: "41", changedAt: "41", epoch: "41", shape: SHAPE },
    });
    expect(contentOf(scope!)).toEqual([]);
  });

  test("comes back after a restart with the bytes that were put in", () => {
    using bench = new Bench();
    const store = bench.open();
    const items = [
      item("a", 3),
      item("b", 4, { text: "x".repeat(100_000) }),
      { ...item("c", 5), bytes: Buffer.alloc(0) },
      { ...item("d", 6), bytes: crypto.getRandomValues(new Uint8Array(5_000)) },
    ];
    const copy = listedScope(store, items, 9);
    store.close();
    const again = bench.open();
    using snapshot = keptIn(again, copy).snapshot()!;
    expect([...snapshot.items()].map(({ bytes }) => Buffer.from(bytes).toString("latin1"))).toEqual(
      items.map(({ bytes }) => Buffer.from(bytes).toString("latin1")),
    );
    expect([...snapshot.itemSizes()]).toEqual(items.map(({ bytes }) => bytes.length));
    expect(keptIn(again, copy).get("shop", "a")?.meta).toEqual(items[0]!.meta);
  });

  test("dropped, it leaves no row behind; another scope's rows stay", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(300));
    const other = listedScope(store, [item("a", 1)], 5, { ...PODS, principal: "system:node:edge-2" });
    copy.drop();
    expect(store.copies()).toEqual([other]);
    expect(store.status()).toMatchObject({ objects: 1, scopes: 1 });
    expect(bench.look("SELECT rows FROM dictionaries")).toHaveLength(1);
    expect(contentOf(other)).toEqual(["shop/a@1"]);
  });

  test("that never came to a list leaves no mark on disk, dropped or not", () => {
    using bench = new Bench();
    const store = bench.open();
    const { commits } = store.status();
    const copies = Array.from({ length: 200 }, (_, n) => store.openCopy({ ...PODS, principal: `token:${n}` }, 1));
    for (const [n, copy] of copies.entries()) {
      const writer = copy.beginList();
      copy.touch({ lastUsedMs: 2 });
      if (n % 2 === 0) writer.abort();
      if (n % 3 === 0) copy.drop();
    }
    store.settle();
    expect(store.status().commits).toBe(commits);
    expect(bench.look("SELECT * FROM scopes")).toEqual([]);
    list(copies[1]!, [item("a", 1)], 5);
    store.close();
    expect(
      bench
        .open()
        .copies()
        .map(({ identity }) => identity.principal),
    ).toEqual(["token:1"]);
  });

  test("numbers of dropped copies and of their rows are never given out again, restart or not", () => {
    using bench = new Bench();
    const numbers = () => [
      ...bench.look<{ id: number }>("SELECT id FROM scopes").map(({ id }) => id),
      ...bench.look<{ rows: number }>("SELECT DISTINCT rows FROM objects").map(({ rows }) => rows),
    ];
    const seen = new Set<string>();
    for (let round = 0; round < 3; round++) {
      const store = bench.open();
      for (let n = 0; n < 2; n++) {
        const copy = listedScope(store, numbered(3));
        expect(seen.has(String(numbers()))).toBe(false);
        seen.add(String(numbers()));
        copy.drop();
      }
      store.close();
    }
    expect(seen.size).toBe(6);
  });

  test("a revoked permission forgets the scopes it was about, and answers only with everything", () => {
    using bench = new Bench();
    const store = bench.open();
    const pods = listedScope(store, [item("a", 1)]);
    const secrets = listedScope(store, [item("s", 1)], 5, SECRETS);
    const key = { principal: PODS.principal, target: "/version", accept: "application/json" };
    store.putResponse(key, { status: 200, headers: {}, body: Buffer.from("{}"), storedAtMs: 1 }, { isSecret: false });
    store.forget(PODS.principal, ({ resource }) => resource === "secrets");
    expect(store.copies()).toEqual([pods]);
    expect(secrets.isDropped).toBe(true);
    expect(store.getResponse(key)).toBeDefined();
    store.forget("somebody-else", () => true);
    expect(store.copies()).toHaveLength(1);
    store.forget(PODS.principal, () => true);
    expect(store.copies()).toEqual([]);
    expect(store.getResponse(key)).toBeUndefined();
  });
});

describe("group commit", () => {
  test("a write after a quiet second is on disk at once; the next ones come together a second later", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, []);
    const onDisk = () => bench.look<{ key: string }>("SELECT key FROM objects").map(({ key }) => key);
    bench.clock.pass(5_000);
    copy.put(item("a", 101), "101", 1);
    expect(onDisk()).toEqual(["shop/a"]);
    copy.put(item("b", 102), "102", 2);
    copy.put(item("c", 103), "103", 3);
    expect(onDisk()).toEqual(["shop/a"]);
    bench.clock.pass(999);
    expect(onDisk()).toEqual(["shop/a"]);
    bench.clock.pass(1);
    expect(onDisk()).toEqual(["shop/a", "shop/b", "shop/c"]);
    expect(bench.look("SELECT resource_version, changed_at, last_contact FROM marks")).toEqual([
      { resource_version: "103", changed_at: "103", last_contact: 3 },
    ]);
  });

  test("a hundred waiting rows do not wait on", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, []);
    bench.clock.pass(5_000);
    const before = store.status().commits;
    for (const one of numbered(201, 200)) copy.put(one, one.meta.resourceVersion, 1);
    expect(store.status().commits - before).toBe(3);
    expect(bench.look("SELECT count(*) AS n FROM objects")).toEqual([{ n: 201 }]);
  });

  test("what is queued is seen by every reader", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [item("a", 1), item("b", 2)]);
    copy.put(item("x", 100), "100", 1);
    copy.put(item("a", 101), "101", 1);
    copy.delete(item("b", 102), "102", 1);
    expect(copy.get("shop", "a")?.meta.resourceVersion).toBe("101");
    expect(copy.get("shop", "b")).toBeUndefined();
    expect(copy.listed).toMatchObject({ resourceVersion: "102", changedAt: "102", epoch: "100" });
    expect(contentOf(copy)).toEqual(["shop/a@101", "shop/x@100"]);
  });

  test("that a list's difference was told is on disk with the list", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [item("a", 1)]);
    const relist = (resourceVersion: string, isPartlyTold: boolean) => {
      const writer = copy.beginList();
      writer.add(item("b", resourceVersion));
      writer.commit(
        { shape: SHAPE, contentType: "application/json", resourceVersion, nowMs: 1, isPartlyTold },
        () => {},
      );
      return bench.look("SELECT resource_version, partly_told FROM marks");
    };
    expect(relist("200", true)).toEqual([{ resource_version: "200", partly_told: 1 }]);
    expect(copy.listed).toMatchObject({ isPartlyTold: true });
    expect(relist("300", false)).toEqual([{ resource_version: "300", partly_told: 0 }]);
  });

  test("bookmarks wait for a real change, for settle, or for twenty minutes", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, []);
    const onDisk = () =>
      bench.look<{ resource_version: string }>("SELECT resource_version FROM marks")[0]?.resource_version;
    bench.clock.pass(5_000);
    const before = store.status().commits;
    for (let minute = 0; minute < 19; minute++) {
      copy.touch({ resourceVersion: String(200 + minute), lastContactMs: minute });
      bench.clock.pass(60_000);
    }
    expect(copy.listed).toMatchObject({ resourceVersion: "218", changedAt: "100", lastContactMs: 18 });
    expect([store.status().commits - before, onDisk()]).toEqual([0, "100"]);
    bench.clock.pass(60_000);
    expect([store.status().commits - before, onDisk()]).toEqual([1, "218"]);
    copy.touch({ resourceVersion: "300" });
    store.settle();
    expect(onDisk()).toBe("300");
    copy.touch({ resourceVersion: "301" });
    store.putResponse(
      { principal: "p", target: "/t", accept: "a" },
      { status: 200, headers: {}, body: new Uint8Array(1), storedAtMs: 1 },
      { isSecret: false },
    );
    store.flush();
    expect(onDisk()).toBe("301");
  });

  describe.each([["JSON"], ["protobuf"]] as const)("a node's heartbeat in %s", (format) => {
    const NODES: ScopeIdentity = { ...PODS, resource: "nodes", fieldSelector: "metadata.name=edge-1" };
    const node = (
      version: number,
      { beat = 0, label = "none", uid = "u", ready = "True", transition = 0 }: NodeChange = {},
    ): Item => ({
      meta: { namespace: "", name: "edge-1", uid, resourceVersion: String(version) },
      bytes: Uint8Array.from(
        (format === "JSON" ? jsonNode : protobufNode)({ version, beat, label, uid, ready, transition }),
      ),
    });
    /** Puts it, lets two seconds pass. @returns whether it is on disk. */
    function isWritten(change: Item): boolean {
      using bench = new Bench();
      const store = bench.open();
      const copy = listedScope(store, [node(1)], 1, NODES);
      copy.put(change, change.meta.resourceVersion, 1);
      bench.clock.pass(2_000);
      const [row] = bench.look("SELECT resource_version FROM marks") as { resource_version: string }[];
      const isOnDisk = row!.resource_version === change.meta.resourceVersion;
      // Read at once in any case, and written with what else is to be written.
      expect(copy.get("", "edge-1")).toEqual(change);
      store.settle();
      expect(bench.look("SELECT resource_version FROM marks")).toEqual([
        { resource_version: change.meta.resourceVersion },
      ]);
      return isOnDisk;
    }

    test("alone waits for the bookmarks; whatever else changed does not", () => {
      expect(isWritten(node(2, { beat: 300 }))).toBe(false);
      expect(isWritten(node(2, { beat: 300, label: "cordoned" }))).toBe(true);
      expect(isWritten(node(2, { beat: 300, ready: "False" }))).toBe(true);
      expect(isWritten(node(2, { beat: 300, transition: 300 }))).toBe(true);
      expect(isWritten(node(2, { beat: 300, uid: "another" }))).toBe(true);
    });

    test("takes a change that came before it along", () => {
      using bench = new Bench();
      const store = bench.open();
      const copy = listedScope(store, [node(1)], 1, NODES);
      copy.put(node(2, { label: "cordoned" }), "2", 1);
      // Within the second that commits are apart.
      copy.put(node(3), "3", 1);
      copy.put(node(4, { beat: 300 }), "4", 1);
      expect(bench.look("SELECT resource_version FROM marks")).toEqual([{ resource_version: "2" }]);
      bench.clock.pass(2_000);
      expect(bench.look("SELECT resource_version FROM marks")).toEqual([{ resource_version: "4" }]);
    });
  });

  test("the same bytes again move only the resourceVersion", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [item("a", 1)]);
    const { rowsWritten } = store.status();
    copy.put(item("a", 1), "150", 1);
    store.flush();
    expect(store.status().rowsWritten).toBe(rowsWritten);
    expect(bench.look("SELECT resource_version FROM marks")).toEqual([{ resource_version: "150" }]);
  });

  test("a day of bookmarks for thirty scopes writes less than 10 MB", () => {
    using bench = new Bench();
    const store = bench.open();
    const ids = Array.from({ length: 30 }, (_, n) =>
      listedScope(store, numbered(5), 100, { ...PODS, namespace: `team-${n}` }),
    );
    const before = writtenBytes();
    for (let minute = 0; minute < 1_440; minute++) {
      for (const copy of ids) copy.touch({ resourceVersion: String(1_000 + minute), lastContactMs: minute });
      bench.clock.pass(60_000);
    }
    expect(writtenBytes() - before).toBeLessThan(10e6);
  });

  test("five thousand new objects within a minute write less than 10 MB", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, []);
    const before = writtenBytes();
    let resourceVersion = 1_000;
    for (let n = 0; n < 5_000; n++) {
      const one = item(`web-${Bun.hash.xxHash32(String(n)).toString(36)}`, ++resourceVersion, {
        uid: crypto.randomUUID(),
        namespace: `team-${n % 40}`,
        text: `${crypto.randomUUID()} ${"the same for all of them, as specs are. ".repeat(34)}`,
      });
      copy.put(one, String(resourceVersion), 1);
      bench.clock.pass(12);
    }
    store.close();
    expect(writtenBytes() - before).toBeLessThan(10e6);
  });
});

describe("a list", () => {
  test("an identical one writes no object and reports nothing", () => {
    using bench = new Bench();
    const store = bench.open();
    const items = numbered(500);
    const copy = listedScope(store, items);
    const { rowsWritten } = store.status();
    expect(list(copy, items, 900)).toEqual([]);
    expect(store.status().rowsWritten).toBe(rowsWritten);
    expect(copy.listed).toMatchObject({ resourceVersion: "900", changedAt: "900", epoch: "900" });
  });

  test("reports what differs: by resourceVersion, a new uid right behind its predecessor's end, then what is gone", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [
      item("same", 1),
      item("changed", 2),
      item("replaced", 3),
      item("gone", 4),
      item("lost", 5),
    ]);
    const changes = list(
      copy,
      [
        item("new", 202),
        item("replaced", 201, { uid: "another" }),
        item("changed", 200),
        item("same", 1),
        item("newest", 1_000),
      ],
      1_001,
    );
    expect(changes).toEqual([
      "MODIFIED changed@200",
      "DELETED replaced@3",
      "ADDED replaced@201",
      "ADDED new@202",
      "ADDED newest@1000",
      "DELETED gone@4",
      "DELETED lost@5",
    ]);
    expect(contentOf(copy)).toEqual([
      "shop/changed@200",
      "shop/new@202",
      "shop/newest@1000",
      "shop/replaced@201",
      "shop/same@1",
    ]);
  });

  test("other bytes of the same state are written and are no event", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [item("a", 1, { text: "age 5m" })]);
    expect(list(copy, [item("a", 1, { text: "age 6m" })], 300)).toEqual([]);
    expect(Buffer.from(copy.get("shop", "a")!.bytes).toString()).toContain("age 6m");
  });

  test("more differences than memory should hold are staged in rows and reported alike", () => {
    using bench = new Bench();
    const store = bench.open();
    const random = () => crypto.getRandomValues(Buffer.alloc(1_000)).toString("base64");
    const copy = listedScope(store, numbered(600));
    const items = numbered(600, 5_000).map((one, n) =>
      item(one.meta.name, one.meta.resourceVersion, { text: random(), uid: n === 3 ? "another" : one.meta.uid }),
    );
    const changes: string[] = [];
    const writer = copy.beginList();
    for (const one of items.slice(10)) writer.add(one);
    for (const one of items.slice(0, 9)) writer.add(one);
    expect(bench.look<{ n: number }>("SELECT count(*) AS n FROM objects")[0]!.n).toBeGreaterThan(600);
    expect(contentOf(copy)).toHaveLength(600);
    writer.commit({ shape: SHAPE, contentType: "application/json", resourceVersion: "9000", nowMs: 1 }, (change) =>
      changes.push(spoken(change)),
    );
    expect(changes.slice(2, 6)).toEqual([
      "MODIFIED pod-00002@5002",
      "DELETED pod-00003@4",
      "ADDED pod-00003@5003",
      "MODIFIED pod-00004@5004",
    ]);
    expect(changes.slice(-2)).toEqual(["MODIFIED pod-00599@5599", "DELETED pod-00009@10"]);
    expect(contentOf(copy)).toHaveLength(599);
    expect(store.status().objects).toBe(599);
    expect(store.verify()).toEqual({ checked: 599, damaged: 0 });
  });

  test("of a key that comes twice the last one wins, in a first list and in a later one", () => {
    using bench = new Bench();
    const store = bench.open();
    const items = numbered(150);
    const copy = listedScope(store, [item("pod-00000", 700), ...items, item("pod-00001", 701), item("pod-00149", 702)]);
    expect(contentOf(copy)!.filter((text) => /-00(000|001|149)@/.test(text))).toEqual([
      "shop/pod-00000@1",
      "shop/pod-00001@701",
      "shop/pod-00149@702",
    ]);
    expect(contentOf(copy)).toHaveLength(150);
    expect(
      list(copy, [...items.slice(0, 149), item("pod-00149", 702), item("pod-00002", 800), items[2]!], 900),
    ).toEqual(["MODIFIED pod-00001@2"]);
    expect(store.verify()).toEqual({ checked: 150, damaged: 0 });
  });

  test("aborted, it leaves nothing, a first one and a later one", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = store.openCopy(PODS, 1);
    const first = copy.beginList();
    for (const one of numbered(250)) first.add(one);
    expect([first.itemCount, first.itemBytes]).toEqual([
      250,
      numbered(250).reduce((sum, { bytes }) => sum + bytes.length, 0),
    ]);
    first.abort();
    expect(store.status().objects).toBe(0);
    expect(copy.listed).toBeUndefined();
    list(copy, numbered(3), 9);
    const later = copy.beginList();
    later.add(item("other", 50));
    later.abort();
    expect(contentOf(copy)).toHaveLength(3);
    expect(store.status().objects).toBe(3);
  });

  test("cut off by a crash, its rows are gone at the next start", () => {
    using bench = new Bench();
    const writer = bench.open();
    const copy = writer.openCopy(PODS, 1);
    const writing = keptIn(writer, copy).beginList();
    for (const one of numbered(250)) writing.add(one);
    expect(bench.look("SELECT count(*) AS n FROM objects")).toEqual([{ n: 200 }]);
    const again = bench.openAfterCrash();
    expect(again.status().objects).toBe(0);
    expect(again.copies()[0]?.listed).toBeUndefined();
  });

  test("an event newer than the list stands, and the state goes on from it", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [item("a", 1), item("b", 2), item("c", 3)]);
    const writer = copy.beginList();
    // Taken at 200, but slow: three newer events arrive while it does.
    writer.add(item("a", 150));
    writer.add(item("b", 2));
    copy.put(item("a", 201), "201", 1);
    copy.delete(item("b", 202), "202", 1);
    copy.put(item("new", 203), "203", 1);
    writer.add(item("c", 160));
    const changes: string[] = [];
    writer.commit({ shape: SHAPE, contentType: "application/json", resourceVersion: "200", nowMs: 1 }, (change) =>
      changes.push(spoken(change)),
    );
    expect(changes).toEqual(["MODIFIED c@160"]);
    expect(contentOf(copy)).toEqual(["shop/a@201", "shop/c@160", "shop/new@203"]);
    expect(copy.listed).toMatchObject({ resourceVersion: "203", changedAt: "203", epoch: "203" });
    expect(store.verify().damaged).toBe(0);
  });

  test("of a copy dropped meanwhile it leaves no row behind", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = store.openCopy(PODS, 1);
    const writer = copy.beginList();
    for (const one of numbered(150)) writer.add(one);
    expect(store.status().objects).toBe(100);
    copy.drop();
    expect(() => writer.add(item("late", 5))).toThrow(CopyDroppedError);
    expect(store.status()).toMatchObject({ objects: 0, scopes: 0 });
  });
});

describe("a snapshot", () => {
  test("is in the byte order of namespace/name", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, [
      item("b", 1, { namespace: "a-b" }),
      item("z", 2, { namespace: "a" }),
      item("a", 3, { namespace: "a.b" }),
      item("Z", 4, { namespace: "a" }),
      item("é", 5, { namespace: "a" }),
    ]);
    expect(contentOf(copy)).toEqual(["a-b/b@1", "a.b/a@3", "a/Z@4", "a/z@2", "a/é@5"]);
    const nodes = listedScope(store, [item("edge-2", 1, { namespace: "" }), item("edge-1", 2, { namespace: "" })], 9, {
      ...PODS,
      resource: "nodes",
    });
    expect(contentOf(nodes)).toEqual(["edge-1@2", "edge-2@1"]);
    expect(nodes.get("", "edge-2")?.meta).toEqual({
      namespace: "",
      name: "edge-2",
      uid: "uid-of-edge-2",
      resourceVersion: "1",
    });
  });

  test("shows one moment, across awaits, whatever is written meanwhile", async () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(300));
    const snapshots = Array.from({ length: 5 }, () => copy.snapshot()!);
    const seen: string[][] = snapshots.map(() => []);
    const readers = snapshots.map(async (snapshot, n) => {
      using open = snapshot;
      for (const one of open.items()) {
        seen[n]!.push(one.meta.resourceVersion);
        if (seen[n]!.length % 50 === 0) await Promise.resolve();
      }
    });
    for (const one of numbered(150, 9_000)) {
      copy.put(one, one.meta.resourceVersion, 1);
      await Promise.resolve();
    }
    copy.drop();
    await Promise.all(readers);
    for (const versions of seen) expect(versions).toEqual(numbered(300).map(({ meta }) => meta.resourceVersion));
  });

  test("read to its end however slowly, while nothing of it changes; after five seconds no transaction stands", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(200));
    const other = listedScope(store, numbered(10), 100, { ...PODS, resource: "configmaps" });
    using snapshot = copy.snapshot()!;
    const items = snapshot.items()[Symbol.iterator]();
    const versions = [items.next().value!.meta.resourceVersion];
    bench.clock.pass(60_000);
    // Other copies move on, and the log with them.
    for (const one of numbered(300, 9_000)) other.put(one, one.meta.resourceVersion, 1);
    store.flush();
    expect(bench.checkpoint()).toMatchObject({ busy: 0 });
    for (const one of { [Symbol.iterator]: () => items }) versions.push(one.meta.resourceVersion);
    expect(versions).toEqual(numbered(200).map(({ meta }) => meta.resourceVersion));
  });

  for (const { name, change } of [
    { name: "an object changes", change: (copy: Copy) => copy.put(item("pod-00150", 900), "900", 1) },
    { name: "an object goes", change: (copy: Copy) => copy.delete(item("pod-00150", 900), "900", 1) },
    { name: "the copy is dropped", change: (copy: Copy) => copy.drop() },
    { name: "it is listed anew", change: (copy: Copy) => void list(copy, numbered(100, 500), 900) },
  ])
    test(`of a reader that stood still breaks off when ${name}, and the copy is none the worse`, () => {
      using bench = new Bench();
      const store = bench.open();
      const copy = listedScope(store, numbered(200));
      using snapshot = copy.snapshot()!;
      const items = snapshot.items()[Symbol.iterator]();
      items.next();
      bench.clock.pass(5_000);
      change(copy);
      store.flush();
      let read = 1;
      expect(() => {
        for (const _ of { [Symbol.iterator]: () => items }) read++;
      }).toThrow(SnapshotGoneError);
      expect(read).toBeLessThan(200);
      expect(store.status().quarantined).toBe(0);
      if (!copy.isDropped) expect(contentOf(copy)?.length).toBeGreaterThanOrEqual(100);
    });

  test("of clients that stall, one after the other, never lets the log grow beyond its bound", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(500, 1, "x".repeat(4_000)));
    const stalled: Disposable[] = [];
    let [at, mostBytes] = [1_000, 0];
    for (let round = 0; round < 60; round++) {
      // There is always one that has stood for less than its time.
      const snapshot = copy.snapshot()!;
      snapshot.items()[Symbol.iterator]().next();
      stalled.push(snapshot);
      for (let n = 0; n < 100; n++, at++) {
        const text = crypto.getRandomValues(Buffer.alloc(4_000)).toString("base64");
        copy.put(item(`pod-${String(at % 500).padStart(5, "0")}`, at, { text }), String(at), 1);
      }
      bench.clock.pass(1_000);
      mostBytes = Math.max(mostBytes, statSync(`${bench.file}-wal`).size);
    }
    for (const snapshot of stalled) snapshot[Symbol.dispose]();
    // Some 40 MB were written; the bound is 16 MB and a commit.
    expect(mostBytes).toBeGreaterThan(4 * 2 ** 20);
    expect(mostBytes).toBeLessThan(18 * 2 ** 20);
    expect(contentOf(copy)).toHaveLength(500);
  });

  test("closed, it can be read no more, and the log is free again", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(10));
    const snapshot = copy.snapshot()!;
    snapshot[Symbol.dispose]();
    snapshot[Symbol.dispose]();
    expect(() => [...snapshot.items()]).toThrow(RangeError);
    expect(contentOf(copy)).toHaveLength(10);
    // Long after its last use no read connection is left open.
    bench.clock.pass(31_000);
    expect(contentOf(copy)).toHaveLength(10);
  });

  test("that meets a damaged row breaks off, and the scope is unlisted", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(200));
    store.close();
    bench.spoil("UPDATE objects SET value = zeroblob(length(value)) WHERE key = 'shop/pod-00150'");
    const again = bench.open();
    using snapshot = keptIn(again, copy).snapshot()!;
    let read = 0;
    expect(() => {
      for (const _ of snapshot.items()) read++;
    }).toThrow(ScopeDamagedError);
    expect(read).toBe(150);
    expect(keptIn(again, copy).listed).toBeUndefined();
    expect(keptIn(again, copy).snapshot()).toBeUndefined();
    expect(again.status()).toMatchObject({ quarantined: 1, objects: 0 });
    list(keptIn(again, copy), numbered(200), 500);
    expect(contentOf(keptIn(again, copy))).toHaveLength(200);
  });
});

describe("the quota", () => {
  const answer = (n: number) => ({
    status: 200,
    headers: {},
    body: crypto.getRandomValues(new Uint8Array(50_000)),
    storedAtMs: n,
  });
  const fill = (n: number) =>
    Array.from({ length: 40 }, (_, at) =>
      item(`o-${at}`, n * 1_000 + at, { text: crypto.getRandomValues(Buffer.alloc(3_000)).toString("base64") }),
    );

  test("is told of behind a commit, at most once a minute, and only while it is exceeded", () => {
    using bench = new Bench();
    const store = bench.open({ maxBytes: 300_000 });
    const told: boolean[] = [];
    store.onExcess((isInMemory) => {
      told.push(isInMemory);
      for (const { key } of store.listResponses().slice(told.length === 1 ? -3 : 3)) store.deleteResponse(key);
    });
    const put = (n: number) =>
      store.putResponse({ principal: "p", target: `/doc/${n}`, accept: "a" }, answer(n), { isSecret: false });
    for (let n = 0; n < 8; n++) put(n);
    store.flush();
    expect(store.excessBytes()).toBeGreaterThan(0);
    expect(told).toEqual([]);
    bench.clock.pass(61_000);
    put(8);
    expect(told).toEqual([false]);
    expect(store.listResponses()).toHaveLength(6);
    put(9);
    store.flush();
    expect(told).toHaveLength(1);
    bench.clock.pass(61_000);
    put(10);
    expect(told).toHaveLength(2);
    store.flush();
    expect(store.excessBytes()).toBeLessThanOrEqual(0);
    bench.clock.pass(61_000);
    put(10);
    store.flush();
    expect(told).toHaveLength(2);
  });

  test("counts what each copy keeps", () => {
    using bench = new Bench();
    const store = bench.open();
    const [pods, maps] = [listedScope(store, fill(1)), store.openCopy({ ...PODS, resource: "configmaps" }, 1)];
    expect([store.usage().get(pods), store.usage().get(maps)]).toEqual([pods.size().bytes, 0]);
    expect(pods.size().bytes).toBeGreaterThan(100_000);
  });
});

describe("the folder", () => {
  test("is made with its files for root alone", () => {
    using bench = new Bench();
    const stateDir = join(bench.dir, "deep", "state");
    const store = bench.open({ stateDir });
    listedScope(store, numbered(10));
    const modes = ["", "cache.db", "cache.db-wal", "cache.db-shm", "keys", "keys/seal.key"].map((name) => [
      name,
      (statSync(join(stateDir, name)).mode & 0o777).toString(8),
    ]);
    expect(Object.fromEntries(modes)).toEqual({
      "": "700",
      "cache.db": "600",
      "cache.db-wal": "600",
      "cache.db-shm": "600",
      keys: "700",
      "keys/seal.key": "600",
    });
    expect(store.status()).toMatchObject({ mode: "disk", reason: "", sealing: "file", scopes: 1, objects: 10 });
  });

  test("can be looked into beside a daemon without a trace", () => {
    using bench = new Bench();
    const store = bench.open();
    const copy = listedScope(store, numbered(10));
    const reader = bench.open({ isReadOnly: true });
    expect(contentOf(keptIn(reader, copy))).toHaveLength(10);
    expect(reader.verify()).toEqual({ checked: 10, damaged: 0 });
    keptIn(reader, copy).touch({ resourceVersion: "999" });
    reader.close();
    copy.put(item("z", 500), "500", 1);
    expect(contentOf(copy)).toHaveLength(11);
  });
});

function writtenBytes(): number {
  return Number(/^wchar: (\d+)/m.exec(readFileSync("/proc/self/io", "utf8"))![1]);
}

interface NodeChange {
  readonly beat?: number;
  readonly label?: string;
  readonly uid?: string;
  readonly ready?: string;
  readonly transition?: number;
}

type NodeState = Required<NodeChange> & { readonly version: number };

/** Times are seconds after ten o'clock. */
/** Managers stand in the order of their times: kubelet's heartbeat moves it behind the other. */
function managersAt(beat: number): [manager: string, seconds: number][] {
  const managers: [string, number][] = [
    ["kubelet", beat],
    ["kube-controller-manager", 4],
  ];
  return managers.sort(([, a], [, b]) => a - b);
}

function jsonNode({ version, beat, label, uid, ready, transition }: NodeState): Uint8Array {
  const time = (seconds: number) => new Date(Date.UTC(2026, 0, 1, 10, 0, seconds)).toISOString();
  return Buffer.from(
    JSON.stringify({
      metadata: {
        name: "edge-1",
        uid,
        resourceVersion: String(version),
        labels: { state: label },
        managedFields: managersAt(beat).map(([manager, seconds]) => ({
          manager,
          time: time(seconds),
          fieldsType: "FieldsV1",
        })),
      },
      status: {
        conditions: [
          { type: "Ready", status: ready, lastHeartbeatTime: time(beat), lastTransitionTime: time(transition) },
        ],
      },
    }),
  );
}

function protobufNode({ version, beat, label, uid, ready, transition }: NodeState): Uint8Array {
  const time = (number: number, seconds: number) => message(number, [varint(1, 1_767_261_600 + seconds)]);
  return Buffer.concat([
    message(1, [
      text(1, "edge-1"),
      text(5, uid),
      text(6, String(version)),
      message(11, [text(1, "state"), text(2, label)]),
      ...managersAt(beat).map(([manager, seconds]) =>
        message(17, [text(1, manager), time(4, seconds), text(6, "FieldsV1")]),
      ),
    ]),
    message(3, [message(4, [text(1, "Ready"), text(2, ready), time(3, beat), time(4, transition)])]),
  ]);
}
