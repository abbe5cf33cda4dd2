/**
 * The link's verdict where the machine, and not the network, is slow.
 */
import { expect, test } from "bun:test";
import { afterAwake } from "../../src/base/awake-time.ts";
import { systemClock, type Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { Link } from "../../src/uplink/link.ts";
import { VirtualClock } from "../simulation/clock.ts";

test("a probe whose answer lay in the socket while the loop was busy loses no link", async () => {
  const stop = new AbortController();
  // Nothing runs for longer than the first probe's five seconds, as under load or SIGSTOP; then the answer is there.
  const busy = () => {
    Bun.sleepSync(5_600);
    return new Response("ok");
  };
  await using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: busy });
  const verdicts: boolean[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const link = new Link({
    clock: systemClock,
    log: silentLog,
    probe: async (signal) => void (await fetch(server.url, { signal })),
  });
  link.onChange((isOnline) => {
    verdicts.push(isOnline);
    resolve();
  });
  link.start(stop.signal);
  await promise;
  stop.abort();
  expect(verdicts).toEqual([true]);
}, 30_000);

test("who fails at a change of the link keeps the news from nobody else", async () => {
  const stop = new AbortController();
  const errors: string[] = [];
  const log = {
    ...silentLog,
    error: (message: string, fields?: object) => void errors.push(`${message} ${JSON.stringify(fields)}`),
  };
  const link = new Link({ clock: systemClock, log, probe: async () => {} });
  link.onChange(() => {
    throw new Error("no renewals here");
  });
  const heard = new Promise<boolean>((resolve) => link.onChange(resolve));
  link.start(stop.signal);
  expect(await heard).toBe(true);
  stop.abort();
  expect(errors).toEqual([expect.stringContaining("no renewals here")]);
});

test("a deadline of awake time fires in its time on a clock that is never late", () => {
  const clock = new VirtualClock();
  const startedMs = clock.monotonicMs();
  const fired: number[] = [];
  afterAwake(clock, 1_130, () => fired.push(clock.monotonicMs() - startedMs));
  const cancel = afterAwake(clock, 300, () => fired.push(-1));
  clock.pass(260);
  cancel();
  clock.pass(3_000);
  expect(fired).toEqual([1_130]);
});

test("and counts of a late step only what it was meant to last", () => {
  const timers: (() => void)[] = [];
  const clock: Clock = { ...systemClock, after: (_, task) => (timers.push(task), () => {}) };
  let isOver = false;
  afterAwake(clock, 1_000, () => (isOver = true));
  // However late each comes, four are needed.
  for (let step = 0; step < 4; step++) {
    expect(isOver).toBe(false);
    timers.shift()!();
  }
  expect(isOver).toBe(true);
});
