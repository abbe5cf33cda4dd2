/**
 * `bun run fleet`: ten thousand nodes lose their API server and find it again.
 *
 *   --nodes N      simulated, default 1000; each counts as 10,000 / N of the fleet
 *   --fleet N      how many the fleet has, default 10000
 *   --cut SECONDS  how long the API server is away, default 300
 *   --picture FILE draws the curve, for example docs/fleet.svg
 *
 * Real code on a virtual clock (test/simulation/fleet-world.ts). Twice: as it
 * is, and as if each node believed itself alone. Prints what the API server was
 * asked for, in quiet times and at the return.
 */

import { writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { FleetWorld, type Curve } from "../test/simulation/fleet-world.ts";
import type { Second } from "../test/simulation/fleet-server.ts";

const nodes = Number(option("--nodes") ?? "1000");
const size = Number(option("--fleet") ?? "10000");
const cutSeconds = Number(option("--cut") ?? "300");
const picture = option("--picture");
const SETTLED_S = 180;
const STEADY_S = 480;
const RETURN_S = 360;
const MEASURED = ["requests", "watches", "lists", "probes", "connections", "bytes"] as const;

interface Run {
  readonly steady: Curve;
  readonly back: Curve;
  readonly steadyOpen: number;
}

const inTurn = run("in turn", size);
const atOnce = run("each as if alone", 1);
if (picture !== undefined) writeFileSync(picture, drawn(inTurn, atOnce));
process.exit(0);

function run(name: string, hint: number | undefined): Run {
  const fleet = new FleetWorld({ seed: 1, nodes, fleet: size, ...(hint === undefined ? {} : { hint }) });
  fleet.pass(SETTLED_S);
  const steady = fleet.pass(STEADY_S);
  const steadyOpen = fleet.server.openWatches;
  fleet.server.goDown();
  fleet.pass(cutSeconds);
  const fromMs = fleet.clock.monotonicMs();
  fleet.server.comeBack();
  const renewed: number[] = [];
  const told: number[] = [];
  const back: Second[] = [];
  for (let second = 1; second <= RETURN_S; second++) {
    back.push(...fleet.pass(1));
    renewed.push(fleet.nodes.filter(({ renewedAtMs }) => renewedAtMs > fromMs).length);
    told.push(fleet.nodes.filter((node) => node.backAtMs > fromMs && node.hasCaughtUp).length);
  }
  const secondOf = (counts: readonly number[], part: number) => {
    const at = counts.findIndex((count) => count >= part * nodes);
    return at < 0 ? "never" : `${at + 1} s`;
  };
  console.log(`${name}: ${nodes} nodes for ${size}, ${cutSeconds} s away; load ${loadavg()[0]!.toFixed(1)}`);
  for (const what of MEASURED) {
    const usual = mean(steady, what);
    const most = Math.max(...back.map((second) => second[what]));
    const mostOfTen = peak(back, what, 10);
    const ratio = (value: number) => (usual === 0 ? "" : ` (x${(value / usual).toFixed(2)})`);
    console.log(
      `  ${what.padEnd(12)} a second: quiet ${round(usual)}; at the return at most ${round(most)}${ratio(most)}, over ten seconds ${round(mostOfTen)}${ratio(mostOfTen)}`,
    );
  }
  console.log(`  watches open: quiet ${steadyOpen}, after the return ${fleet.server.openWatches}`);
  console.log(
    `  lease renewed: half ${secondOf(renewed, 0.5)}, 99 % ${secondOf(renewed, 0.99)}, all ${secondOf(renewed, 1)}`,
  );
  console.log(`  at the truth: half ${secondOf(told, 0.5)}, 99 % ${secondOf(told, 0.99)}, all ${secondOf(told, 1)}`);
  const errors = fleet.nodes.flatMap((node) => node.errors);
  if (errors.length > 0) console.log(`  ${errors.length} errors nobody expected, the first: ${errors[0]}`);
  fleet.stop();
  return { steady, back, steadyOpen };
}

/** Requests a second over the return, as they were counted. */
function drawn(turned: Run, alone: Run): string {
  const [width, height, left, top] = [760, 360, 70, 46];
  const usual = mean(turned.steady, "requests");
  const seconds = 240;
  const least = 100;
  const most = 10 ** Math.ceil(Math.log10(Math.max(...alone.back.map(({ requests }) => requests))));
  const x = (second: number) => left + (second / seconds) * width;
  const y = (value: number) =>
    top + height * (1 - Math.log10(Math.max(least, value) / least) / Math.log10(most / least));
  const line = (curve: Curve, colour: string) => {
    const points = curve.slice(0, seconds).map(({ requests }, at) => `${x(at).toFixed(1)},${y(requests).toFixed(1)}`);
    return `<polyline fill="none" stroke="${colour}" stroke-width="1.6" points="${points.join(" ")}"/>`;
  };
  const level = (value: number, words: string, colour: string) =>
    `<line x1="${left}" x2="${left + width}" y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}" stroke="${colour}" stroke-dasharray="5 4"/><text x="${left + width - 4}" y="${(y(value) - 5).toFixed(1)}" text-anchor="end" fill="${colour}">${words}</text>`;
  const marks: string[] = [];
  for (let value = least; value <= most; value *= 10)
    marks.push(
      `<line x1="${left}" x2="${left + width}" y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}" stroke="#ddd"/><text x="${left - 8}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end">${value.toLocaleString("en")}</text>`,
    );
  for (let second = 0; second <= seconds; second += 30)
    marks.push(`<text x="${x(second)}" y="${top + height + 20}" text-anchor="middle">${second} s</text>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${left + width + 20} ${top + height + 70}" font-family="sans-serif" font-size="12" fill="#333">
<title>Requests a second at the API server when ${size} nodes come back</title>
<rect width="100%" height="100%" fill="#fff"/>
<text x="${left}" y="22" font-size="15">${size.toLocaleString("en")} nodes come back after ${cutSeconds} s: requests a second at the API server</text>
${marks.join("\n")}
${level(usual, "quiet times", "#777")}
${level(2 * usual, "twice that", "#b36b00")}
${line(alone.back, "#c33")}
${line(turned.back, "#1661a8")}
<text x="${left}" y="${top + height + 44}" fill="#1661a8">each in its turn, as it is</text>
<text x="${left + 200}" y="${top + height + 44}" fill="#c33">each as if alone</text>
<text x="${left + width}" y="${top + height + 44}" text-anchor="end" fill="#777">simulated: ${nodes} nodes, counted ${size / nodes} times; logarithmic</text>
</svg>
`;
}

function mean(curve: Curve, what: keyof Second): number {
  return curve.reduce((sum, second) => sum + second[what], 0) / curve.length;
}

function peak(curve: Curve, what: keyof Second, window: number): number {
  let most = 0;
  for (let from = 0; from + window <= curve.length; from++)
    most = Math.max(most, mean(curve.slice(from, from + window), what));
  return most;
}

function round(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function option(name: string): string | undefined {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}
