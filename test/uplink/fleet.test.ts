/**
 * What a node makes of its lease's resourceVersions.
 */

import { expect, test } from "bun:test";
import { Fleet } from "../../src/uplink/fleet.ts";
import { VirtualClock } from "../simulation/clock.ts";

interface Given {
  readonly size?: number;
  readonly draw?: number;
  readonly newest?: () => string | undefined;
}

function fleetOf({ size, draw = 1, newest = () => undefined }: Given = {}) {
  const clock = new VirtualClock();
  const fleet = new Fleet({ clock, random: () => draw, size, askNewest: async () => newest() });
  fleet.counts(() => 14);
  let revision = 1_000;
  /** Renews for a while; everybody together writes so much a second. */
  const renew = (seconds: number, perS: number) => {
    for (let left = seconds; left > 0; left -= 10) {
      clock.pass(10_000);
      revision += perS * 10;
      fleet.renewed(String(Math.round(revision)));
    }
  };
  return { clock, fleet, renew };
}

test("nobody is taken for a fleet because much is written: without a size there is no turn", () => {
  const { fleet, renew } = fleetOf();
  renew(300, 1_000);
  fleet.lost();
  expect([fleet.size, fleet.turnAfterMs(), fleet.nextProbeMs()]).toEqual([1, 0, 1_000]);
});

test("a few nodes come back at once, look every second", () => {
  const { fleet } = fleetOf({ size: 20 });
  fleet.lost();
  expect(fleet.turnAfterMs()).toBe(0);
  expect(fleet.nextProbeMs()).toBe(1_000);
});

test("a turn is drawn from a span that is five minutes at most, behind the first looks, and drawn anew for each cut", () => {
  let draw = 0.5;
  const fleet = new Fleet({
    clock: new VirtualClock(),
    random: () => draw,
    size: 1_000_000,
    askNewest: async () => undefined,
  });
  fleet.counts(() => 500);
  fleet.lost();
  expect(fleet.turnAfterMs()).toBe(170_000);
  fleet.back();
  draw = 0.1;
  fleet.lost();
  expect(fleet.turnAfterMs()).toBe(50_000);
});

test.each([
  ["alone waits for nobody", 98_000, 0],
  ["with half of them waits half as long", 50_000, 0.5],
  ["with all of them waits its turn, however far history goes on after the first word", 1_000, 1],
] as const)("whose history went on without it was cut, and who was cut %s", async (_, grown, part) => {
  const before = 1_000 + 300_000;
  let newest = String(before + grown);
  const { clock, fleet, renew } = fleetOf({ size: 10_000, newest: () => newest });
  renew(300, 1_000);
  fleet.lost();
  clock.pass(100_000);
  const whole = fleet.turnAfterMs();
  expect(whole).toBeGreaterThan(100_000);
  await fleet.contact(new AbortController().signal);
  const turn = fleet.turnAfterMs();
  expect(turn / whole).toBeWithin(part - 0.1, part + 0.1);
  newest = String(before + 1_000_000);
  fleet.renewed(newest);
  expect(fleet.turnAfterMs()).toBe(turn);
});

test("after a common cut it is known as before who is away in the next", async () => {
  let newest = "";
  const { clock, fleet, renew } = fleetOf({ size: 10_000, newest: () => newest });
  renew(300, 1_000);
  fleet.lost();
  clock.pass(600_000);
  fleet.back();
  renew(60, 1_000);
  fleet.lost();
  clock.pass(10_000);
  newest = String(1_000 + 360_000 + 10_000);
  await fleet.contact(new AbortController().signal);
  expect(fleet.turnAfterMs()).toBe(0);
});

test("an etcd that was set back, or numbers that are none, do not say that anybody went on", async () => {
  const { fleet, renew } = fleetOf({ size: 10_000, newest: () => "9007199254740993000" });
  renew(300, 1_000);
  for (const revision of ["5", "abc", "9007199254740993000"]) fleet.renewed(revision);
  fleet.lost();
  const whole = fleet.turnAfterMs();
  await fleet.contact(new AbortController().signal);
  expect(fleet.turnAfterMs()).toBe(whole);
});

test("who was asked to wait waits as long at least, and never exactly as long; a minute or two at most", () => {
  const { fleet } = fleetOf({ size: 1, draw: 0.25 });
  fleet.lost();
  fleet.askedToWait(8_000);
  expect(fleet.turnAfterMs()).toBe(10_000);
  fleet.askedToWait(86_400_000);
  expect(fleet.turnAfterMs()).toBe(75_000);
});
