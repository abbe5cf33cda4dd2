/**
 * A node comes back at once where it is alone, and in its turn where ten
 * thousand do; the whole curve is `scripts/fleet.ts`'s.
 */

import { expect, test } from "bun:test";
import type { Second } from "./fleet-server.ts";
import { FleetWorld, type Curve, type FleetNode, type FleetOptions } from "./fleet-world.ts";

/** All have started, and two minutes more: long enough to know how fast the cluster writes. */
const SETTLED_S = 180;
/** A tick of watches (`cache/watch-length.ts`). */
const STEADY_S = 480;
/** Few nodes that count as many make a bumpy curve: it is looked at two minutes at a time. */
const WINDOW_S = 120;
const TIMEOUT_MS = 300_000;

test(
  "ten thousand nodes that come back at once ask for no more than twice what they always do, and renew their leases first",
  () => {
    using fleet = settled({ seed: 1, nodes: 50, fleet: 10_000, hint: 10_000 });
    const steady = fleet.pass(STEADY_S);
    expect(isAtTheTruth(fleet)).toBe(true);
    fleet.server.goDown();
    fleet.pass(180);
    const fromMs = fleet.clock.monotonicMs();
    fleet.server.comeBack();
    const soon = fleet.pass(45);
    expect(Math.min(...fleet.nodes.map(({ renewedAtMs }) => renewedAtMs))).toBeGreaterThan(fromMs);
    const later = fleet.pass(255);
    for (const what of ["requests", "bytes"] as const)
      expect(peak([...soon, ...later], what) / mean(steady, what)).toBeLessThan(2);
    expect(isAtTheTruth(fleet)).toBe(true);
    expect(fleet.nodes.flatMap(({ errors }) => errors)).toEqual([]);
  },
  TIMEOUT_MS,
);

test(
  "one of ten thousand that was cut alone waits for its next look and for nobody",
  () => {
    using fleet = settled({ seed: 2, nodes: 20, fleet: 10_000, hint: 10_000 });
    const tookMs = cutAlone(fleet, fleet.nodes[3]!);
    // Looks are 8 to 25 seconds apart in such a fleet.
    expect(tookMs).toBeLessThan(27_000);
  },
  TIMEOUT_MS,
);

test(
  "one of a few is back within two seconds",
  () => {
    using fleet = settled({ seed: 3, nodes: 3, fleet: 3 });
    expect(cutAlone(fleet, fleet.nodes[0]!)).toBeLessThan(2_000);
    expect(cutAlone(fleet, fleet.nodes[1]!)).toBeLessThan(2_000);
  },
  TIMEOUT_MS,
);

test(
  "an API server that can take little is asked again when it said, by nodes that believe they are alone too",
  () => {
    using fleet = settled({ seed: 4, nodes: 40, fleet: 4_000, mostPerSecond: 2_000 });
    fleet.server.goDown();
    fleet.pass(60);
    fleet.server.comeBack();
    const back = fleet.pass(300);
    expect(back.some(({ refused }) => refused > 0)).toBe(true);
    expect(fleet.server.tooSoon).toEqual([]);
    expect(isAtTheTruth(fleet)).toBe(true);
  },
  TIMEOUT_MS,
);

/** @returns after how long a node that was cut for two minutes shows the truth again. */
function cutAlone(fleet: FleetWorld, node: FleetNode): number {
  fleet.server.cut(node.index);
  fleet.pass(120);
  expect(node.holdfast.link.state).toBe("offline");
  const fromMs = fleet.clock.monotonicMs();
  fleet.server.heal(node.index);
  while (!node.hasCaughtUp && fleet.clock.monotonicMs() - fromMs < 300_000) fleet.clock.pass(20);
  return fleet.clock.monotonicMs() - fromMs;
}

/** Each node, at one time or another: watches are opened anew all the while. */
function isAtTheTruth(fleet: FleetWorld): boolean {
  const behind = new Set(fleet.nodes);
  for (let second = 0; second < 10 && behind.size > 0; second++) {
    for (const node of behind) if (node.hasCaughtUp) behind.delete(node);
    fleet.pass(1);
  }
  return behind.size === 0;
}

function settled(options: FleetOptions): FleetWorld & Disposable {
  const fleet = new FleetWorld(options);
  fleet.pass(SETTLED_S);
  return Object.assign(fleet, { [Symbol.dispose]: () => fleet.stop() });
}

function mean(curve: Curve, what: keyof Second): number {
  return curve.reduce((sum, second) => sum + second[what], 0) / curve.length;
}

function peak(curve: Curve, what: keyof Second): number {
  let most = 0;
  for (let from = 0; from + WINDOW_S <= curve.length; from += 10)
    most = Math.max(most, mean(curve.slice(from, from + WINDOW_S), what));
  return most;
}
