import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ScopeDamagedError } from "../../src/store/errors.ts";
import { Sealer, openSealer } from "../../src/store/seal.ts";
import { Bench, PODS, SECRETS, contentOf, filesWith, item, list, listedScope, numbered, keptIn } from "./support.ts";

const MARKER = "c3VwZXItc2VjcmV0LXBhc3N3b3Jk";

describe("a Secret", () => {
  test("lies open in no file, the log and the quarantine included", () => {
    using bench = new Bench();
    const store = bench.open();
    const secrets = listedScope(
      store,
      Array.from({ length: 30 }, (_, n) => item(`s-${n}`, n + 1, { text: MARKER })),
      100,
      SECRETS,
    );
    list(
      secrets,
      Array.from({ length: 400 }, (_, n) =>
        item(`s-${n}`, 200 + n, { text: `${MARKER} ${crypto.randomUUID().repeat(40)}` }),
      ),
      900,
    );
    secrets.put(item("s-1", 901, { text: MARKER }), "901", 1);
    secrets.delete(item("s-2", 902, { text: MARKER }), "902", 1);
    store.putResponse(
      { principal: "p", target: "/secret", accept: "a" },
      { status: 200, headers: {}, body: Buffer.from(MARKER.repeat(20)), storedAtMs: 1 },
      { isSecret: true },
    );
    store.putValue("token", Buffer.from(MARKER), { isSecret: true });
    store.flush();
    expect(filesWith(bench.dir, MARKER)).toEqual([]);
    expect(Buffer.from(secrets.get("shop", "s-1")!.bytes).toString()).toContain(MARKER);
    store.close();
    bench.spoil("UPDATE objects SET checksum = checksum + 1 WHERE key = 'shop/s-1'");
    const again = bench.open();
    expect(keptIn(again, secrets).get("shop", "s-1")).toBeUndefined();
    expect(bench.look("SELECT value FROM quarantine")).toHaveLength(1);
    expect(filesWith(bench.dir, MARKER)).toEqual([]);
  });

  test("that could be looked for is found where it is not sealed: the search works", () => {
    using bench = new Bench();
    const store = bench.open({ isSealed: () => false });
    listedScope(store, [{ ...item("s", 1), bytes: Buffer.from(MARKER) }], 100, SECRETS);
    store.close();
    expect(filesWith(bench.dir, MARKER)).toEqual([bench.file]);
  });

  test("moved to another row does not open", () => {
    using bench = new Bench();
    const store = bench.open();
    const secrets = listedScope(store, [item("a", 1, { text: "of a" }), item("b", 2, { text: "of b" })], 100, SECRETS);
    store.close();
    bench.spoil(
      "UPDATE objects SET value = (SELECT value FROM objects WHERE key = 'shop/b'), checksum = (SELECT checksum FROM objects WHERE key = 'shop/b') WHERE key = 'shop/a'",
    );
    const again = bench.open();
    expect(keptIn(again, secrets).get("shop", "a")).toBeUndefined();
    expect(keptIn(again, secrets).listed).toBeUndefined();
  });

  test("of a lost key is quarantined; everything else stands", () => {
    using bench = new Bench();
    const store = bench.open();
    const secrets = listedScope(store, [item("s", 1)], 100, SECRETS);
    const pods = listedScope(store, numbered(20), 100, PODS);
    store.putValue("sealed", Buffer.from("v"), { isSecret: true });
    store.close();
    rmSync(join(bench.dir, "keys"), { recursive: true });
    const again = bench.open();
    using snapshot = keptIn(again, secrets).snapshot()!;
    expect(() => [...snapshot.items()]).toThrow(ScopeDamagedError);
    expect(again.getValue("sealed")).toBeUndefined();
    expect(again.status()).toMatchObject({ mode: "disk", quarantined: 2, sealing: "file" });
    expect(contentOf(keptIn(again, pods))).toHaveLength(20);
    list(keptIn(again, secrets), [item("s", 5)], 200);
    expect(contentOf(keptIn(again, secrets))).toEqual(["shop/s@5"]);
  });

  test("unchanged is not sealed anew, in a list or by an event", () => {
    using bench = new Bench();
    const store = bench.open();
    const items = numbered(20);
    const secrets = listedScope(store, items, 100, SECRETS);
    const { rowsWritten } = store.status();
    expect(list(secrets, items, 200)).toEqual([]);
    secrets.put(items[3]!, "201", 1);
    store.flush();
    expect(store.status().rowsWritten).toBe(rowsWritten);
  });
});

describe("the sealing key", () => {
  test("is systemd's credential where there is one, and then no file is made", () => {
    using bench = new Bench();
    const credentials = join(bench.dir, "credentials");
    mkdirSync(credentials);
    writeFileSync(join(credentials, "holdfast-seal-key"), new Uint8Array(32).fill(7));
    const sealer = openSealer(join(bench.dir, "state"), false, credentials);
    expect(sealer.source).toBe("credential");
    expect(() => statSync(join(bench.dir, "state", "keys"))).toThrow();
    expect(
      new Sealer(new Uint8Array(32).fill(7), "memory").open(sealer.seal(Buffer.from("x"), "row"), "row")?.toString(),
    ).toBe("x");
  });

  test("is made once, for root alone", () => {
    using bench = new Bench();
    const first = openSealer(bench.dir, false, "");
    const path = join(bench.dir, "keys", "seal.key");
    const key = readFileSync(path);
    expect([key.length, statSync(path).mode & 0o777, first.source]).toEqual([32, 0o600, "file"]);
    const second = openSealer(bench.dir, false, "");
    expect(readFileSync(path)).toEqual(key);
    expect(second.hash("token")).toBe(first.hash("token"));
    expect(first.hash("token")).toMatch(/^[0-9a-f]{64}$/);
    expect(openSealer(join(bench.dir, "other"), false, "").hash("token")).not.toBe(first.hash("token"));
  });

  test("half written is set aside and a new one is made", () => {
    using bench = new Bench();
    const path = join(bench.dir, "keys", "seal.key");
    mkdirSync(join(bench.dir, "keys"));
    writeFileSync(path, "short");
    expect(openSealer(bench.dir, false, "").source).toBe("file");
    expect(readFileSync(`${path}.damaged`, "utf8")).toBe("short");
    expect(readFileSync(path)).toHaveLength(32);
  });

  test("that is there and cannot be read is not written over; it stays in memory", () => {
    using bench = new Bench();
    const path = join(bench.dir, "keys", "seal.key");
    // A folder in its place: unreadable for root as well.
    mkdirSync(path, { recursive: true });
    const sealer = openSealer(bench.dir, false, "");
    expect(sealer.source).toBe("memory");
    sealer.keep(bench.dir);
    expect(statSync(path).isDirectory()).toBe(true);
  });

  test("is not made by who only looks", () => {
    using bench = new Bench();
    chmodSync(bench.dir, 0o700);
    expect(openSealer(bench.dir, true, "").source).toBe("memory");
    expect(() => statSync(join(bench.dir, "keys"))).toThrow();
  });

  test("seals nothing twice alike, and opens nothing that was touched", () => {
    const sealer = new Sealer(new Uint8Array(32).fill(1), "memory");
    const [one, two] = [sealer.seal(Buffer.from("text"), "row"), sealer.seal(Buffer.from("text"), "row")];
    expect(one.equals(two)).toBe(false);
    expect(sealer.open(one, "row")?.toString()).toBe("text");
    expect(sealer.open(one, "another row")).toBeUndefined();
    for (let at = 0; at < one.length; at++) {
      const touched = Buffer.from(one);
      touched[at]! ^= 1;
      expect(sealer.open(touched, "row")).toBeUndefined();
      expect(sealer.open(one.subarray(0, at), "row")).toBeUndefined();
    }
  });
});
