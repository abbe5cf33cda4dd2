import { describe, expect, test } from "bun:test";
import { Bench } from "./support.ts";

const key = (principal: string, target = "/api/v1/namespaces/shop/pods/web?x=1", accept = "application/json") => ({
  principal,
  target,
  accept,
});
const answer = (
  text: string,
  storedAtMs = 1,
  headers: Record<string, string> = { "content-type": "application/json" },
) => ({ status: 200, headers, body: Buffer.from(text), storedAtMs });
const OPEN = { isSecret: false };
const SECRET = { isSecret: true };
const LONG = "the same document for everybody; ".repeat(100);

describe("a recorded answer", () => {
  test("comes back as it was, queued, committed and after a restart", () => {
    using bench = new Bench();
    const store = bench.open();
    const first = { ...answer(LONG), headers: { "content-type": "application/json", etag: '"7"' } };
    store.putResponse(key("a"), answer("earlier"), OPEN);
    store.putResponse(key("a"), first, OPEN);
    const expectIn = (found = store.getResponse(key("a"))!) => {
      expect(found).toMatchObject({ status: 200, headers: first.headers, storedAtMs: 1 });
      expect(Buffer.from(found.body).toString()).toBe(LONG);
    };
    expectIn();
    store.flush();
    expectIn();
    store.close();
    expectIn(bench.open().getResponse(key("a")));
  });

  test("is of one principal, target and Accept", () => {
    using bench = new Bench();
    const store = bench.open();
    store.putResponse(key("a"), answer("1"), OPEN);
    store.flush();
    for (const other of [key("b"), key("a", "/other"), key("a", undefined, "text/plain")])
      expect(store.getResponse(other)).toBeUndefined();
  });

  test("that says the same again moves only its time, and that is held back", () => {
    using bench = new Bench();
    const store = bench.open();
    store.putResponse(key("a"), answer(LONG, 1), OPEN);
    store.flush();
    const { rowsWritten } = store.status();
    store.putResponse(key("a"), answer(LONG, 99), OPEN);
    store.flush();
    expect(store.status().rowsWritten).toBe(rowsWritten);
    expect(bench.look("SELECT stored_at FROM responses")).toEqual([{ stored_at: 1 }]);
    expect(store.getResponse(key("a"))?.storedAtMs).toBe(99);
    expect(store.listResponses()).toMatchObject([{ storedAtMs: 99, sizeBytes: LONG.length }]);
    bench.clock.pass(1_200_000);
    expect(bench.look("SELECT stored_at FROM responses")).toEqual([{ stored_at: 99 }]);
    store.close();
    expect(bench.open().getResponse(key("a"))?.storedAtMs).toBe(99);
  });

  test("with the same body and other headers is written", () => {
    using bench = new Bench();
    const store = bench.open();
    store.putResponse(key("a"), answer(LONG, 1, { etag: "1" }), OPEN);
    store.flush();
    store.putResponse(key("a"), answer(LONG, 2, { etag: "2" }), OPEN);
    store.close();
    expect(bench.open().getResponse(key("a"))).toMatchObject({ headers: { etag: "2" }, storedAtMs: 2 });
  });

  test("shares its body's row with equal ones, until the last of them goes; a secret one with nobody", () => {
    using bench = new Bench();
    const store = bench.open();
    const bodies = () => {
      store.flush();
      return bench.look("SELECT hash FROM bodies").length;
    };
    for (const name of ["a", "b", "c"]) store.putResponse(key(name), answer(LONG), OPEN);
    expect(bodies()).toBe(1);
    for (const name of ["a", "b"]) store.putResponse(key(name, "/secret"), answer(LONG), SECRET);
    expect(bodies()).toBe(3);
    store.putResponse(key("a"), answer("another"), OPEN);
    expect(bodies()).toBe(4);
    store.deleteResponse(key("b"));
    expect(store.getResponse(key("b"))).toBeUndefined();
    expect(bodies()).toBe(4);
    store.deleteResponse(key("c"));
    expect(bodies()).toBe(3);
    expect(Buffer.from(store.getResponse(key("b", "/secret"))!.body).toString()).toBe(LONG);
  });

  test("is forgotten by its path, whatever the query or Accept, queued or not; neighbours stay", () => {
    using bench = new Bench();
    const store = bench.open();
    const path = "/api/v1/pods/web";
    const targets = [path, `${path}?a=1`, `${path}-2`, `${path}/log`, `${path}?b=2`];
    for (const target of targets) store.putResponse(key("a", target), answer("x"), OPEN);
    store.putResponse(key("a", path, "text/plain"), answer("x"), OPEN);
    store.putResponse(key("b", path), answer("x"), OPEN);
    store.flush();
    store.putResponse(key("a", `${path}?queued=1`), answer("x"), OPEN);
    store.deleteResponsesForPath("a", path);
    expect(store.getResponse(key("a", `${path}?queued=1`))).toBeUndefined();
    expect(store.listResponses().map((each) => `${each.key.principal} ${each.key.target}`)).toEqual([
      `a ${path}-2`,
      `a ${path}/log`,
      `b ${path}`,
    ]);
  });

  const damages = [
    { what: "its body", statement: "UPDATE bodies SET value = zeroblob(40)" },
    { what: "its body's packing", statement: "UPDATE bodies SET packing = packing + 1" },
    { what: "its body missing", statement: "DELETE FROM bodies" },
    { what: "its status", statement: "UPDATE responses SET status = 404" },
    { what: "its headers", statement: "UPDATE responses SET headers = '{'" },
    { what: "its caller", statement: "UPDATE responses SET principal = 'c' WHERE principal = 'b'", asked: "c" },
  ];
  for (const { what, statement, asked } of damages) {
    test(`damaged in ${what} is a miss, is counted, and can be recorded again`, () => {
      using bench = new Bench();
      const store = bench.open();
      for (const name of ["a", "b"]) store.putResponse(key(name), answer(LONG), OPEN);
      store.close();
      bench.spoil(statement);
      const again = bench.open();
      expect(again.getResponse(key(asked ?? "a"))).toBeUndefined();
      expect(again.status().quarantined).toBe(1);
      again.putResponse(key("a"), answer(LONG), OPEN);
      again.flush();
      expect(Buffer.from(again.getResponse(key("a"))!.body).toString()).toBe(LONG);
    });
  }
});

describe("a value", () => {
  test("comes back after a restart, and is not written twice", () => {
    using bench = new Bench();
    const store = bench.open();
    store.putValue("cluster", Buffer.from("one"));
    const { commits } = store.status();
    store.putValue("cluster", Buffer.from("one"));
    expect(store.status().commits).toBe(commits);
    store.putValue("cluster", Buffer.from("two"));
    store.putValue("key", Buffer.from("secret"), { isSecret: true });
    store.close();
    const again = bench.open();
    expect(Buffer.from(again.getValue("cluster")!).toString()).toBe("two");
    expect(Buffer.from(again.getValue("key")!).toString()).toBe("secret");
    expect(again.getValue("unknown")).toBeUndefined();
  });

  test("damaged is a miss and is counted, once", () => {
    using bench = new Bench();
    const store = bench.open();
    store.putValue("cluster", Buffer.from("one"));
    store.close();
    bench.spoil("UPDATE kept_values SET value = x'00'");
    const again = bench.open();
    expect([again.getValue("cluster"), again.getValue("cluster")]).toEqual([undefined, undefined]);
    expect(again.status().quarantined).toBe(1);
    again.close();
    expect(bench.open().status().quarantined).toBe(1);
  });
});
