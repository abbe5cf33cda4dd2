import { describe, expect, test } from "bun:test";
import { Parts, type Part } from "../../src/daemon/part.ts";

function told(name: string, told: string[], changes: Partial<Part> = {}): Part {
  return {
    name,
    start: () => void told.push(`start ${name}`),
    drain: () => void told.push(`drain ${name}`),
    stop: () => void told.push(`stop ${name}`),
    ...changes,
  };
}

describe("parts", () => {
  test("start in their order; after the signal they drain backwards, then stop backwards", async () => {
    const log: string[] = [];
    const parts = new Parts();
    for (const name of ["store", "link", "front"]) parts.add(told(name, log));
    const stop = new AbortController();
    const { ended } = await parts.start(stop.signal);
    expect(log).toEqual(["start store", "start link", "start front"]);
    log.length = 0;
    stop.abort();
    await ended;
    expect(log).toEqual(["drain front", "drain link", "drain store", "stop front", "stop link", "stop store"]);
  });

  test("a start that fails stops itself and what had started, and nothing that had not", async () => {
    const log: string[] = [];
    const parts = new Parts();
    parts.add(told("store", log));
    parts.add(told("front", log, { start: () => Promise.reject(new Error("the port is taken")) }));
    parts.add(told("admin", log));
    await expect(parts.start(new AbortController().signal)).rejects.toThrow("the port is taken");
    expect(log).toEqual(["start store", "stop front", "stop store"]);
  });

  test("a signal that has aborted already ends what has just started", async () => {
    const log: string[] = [];
    const parts = new Parts();
    parts.add(told("store", log));
    await (
      await parts.start(AbortSignal.abort())
    ).ended;
    expect(log).toEqual(["start store", "drain store", "stop store"]);
  });

  test("each check is red until its own part has started, then says what the part says", async () => {
    const starting = Promise.withResolvers<void>();
    let trouble: string | undefined = "no verdict yet";
    const parts = new Parts();
    parts.add({ name: "store" });
    parts.add({ name: "link", start: () => starting.promise, check: () => trouble });
    const said = () => parts.checks.map(({ name, check }) => `${name}: ${check() ?? "ok"}`);
    expect(said()).toEqual(["store: not started yet", "link: not started yet"]);
    const started = parts.start(new AbortController().signal);
    await Promise.resolve();
    await Promise.resolve();
    expect(said()).toEqual(["store: ok", "link: not started yet"]);
    starting.resolve();
    await started;
    expect(said()).toEqual(["store: ok", "link: no verdict yet"]);
    trouble = undefined;
    expect(said()).toEqual(["store: ok", "link: ok"]);
  });
});
