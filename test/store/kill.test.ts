import { expect, test } from "bun:test";
import { join } from "node:path";
import { Bench, OBJECTS, SECRETS, objectAt } from "./support.ts";

const KILLS = Number(process.env["HOLDFAST_TEST_KILLS"] ?? 200);

test(`killed ${KILLS} times while it writes, a store opens with every row old or new, and none of another moment`, async () => {
  using bench = new Bench();
  let newest = 0;
  let progressed = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const writer = Bun.spawn([process.execPath, join(import.meta.dir, "kill-writer.ts"), bench.dir], {
      stdout: "pipe",
      stderr: "inherit",
    });
    await writer.stdout.getReader().read();
    // Spread over opening, a first list, events and commits.
    await Bun.sleep((kill * 7) % 120);
    writer.kill("SIGKILL");
    await writer.exited;

    const store = bench.open();
    expect(store.status()).toMatchObject({ mode: "disk", quarantined: 0 });
    for (const copy of store.copies()) {
      const { identity, listed } = copy;
      if (listed === undefined) {
        expect(copy.snapshot()).toBeUndefined();
        continue;
      }
      const at = Number(listed.resourceVersion);
      using snapshot = copy.snapshot()!;
      const found = [...snapshot.items()].map(({ bytes }) => Buffer.from(bytes).toString());
      expect(found).toEqual(Array.from({ length: OBJECTS }, (_, n) => Buffer.from(objectAt(n, at).bytes).toString()));
      const answer = store.getResponse({ principal: "p", target: `/${identity.resource}`, accept: "a" });
      if (answer !== undefined) expect(Buffer.from(answer.body).toString()).toBe(`at ${answer.storedAtMs} `.repeat(50));
      if (identity.resource !== SECRETS.resource) {
        expect(at).toBeGreaterThanOrEqual(newest);
        progressed += Number(at > newest);
        newest = at;
      }
    }
    expect(store.verify().damaged).toBe(0);
    expect(bench.look("SELECT DISTINCT rows FROM objects").length).toBeLessThanOrEqual(2);
    store.close();
  }
  // A writer that never got to write would prove nothing.
  expect(progressed).toBeGreaterThan(KILLS / 4);
}, 120_000);
