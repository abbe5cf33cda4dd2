/**
 * `bun run fuzz`: bent input against second opinions, for as long as asked.
 *
 *   bun run fuzz                          every target, a million cases each
 *   bun run fuzz --cases 10000 --from 5   so many, from this seed on
 *   bun run fuzz json-list der            these targets
 *
 * A case is its seed: the same everywhere. Prints each finding with its seed,
 * and how many cases a target took; exit code 1 when there was one.
 */

import { parseArgs } from "node:util";
import { TARGETS } from "../test/fuzz/targets.ts";

const BATCH = 2_000;
const MAX_SHOWN = 10;

const { values, positionals } = parseArgs({
  options: {
    cases: { type: "string", default: "1000000" },
    from: { type: "string", default: "0" },
  },
  allowPositionals: true,
});
const unknown = positionals.filter((asked) => !TARGETS.some(({ name }) => name === asked));
if (unknown.length > 0) {
  console.error(`No such target: ${unknown.join(", ")}; there are ${TARGETS.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
let failures = 0;
for (const { name, run } of TARGETS) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  const until = Number(values.from) + Number(values.cases);
  let findings = 0;
  for (let seed = Number(values.from); seed < until; seed += BATCH) {
    const seeds = Array.from({ length: Math.min(BATCH, until - seed) }, (_, i) => seed + i);
    for (const finding of await run(seeds))
      if (findings++ < MAX_SHOWN) console.log(`${name}: seed ${finding.seed}: ${finding.what}`);
  }
  console.log(`${name}: ${values.cases} cases, ${findings} findings`);
  failures += findings;
}
process.exitCode = failures === 0 ? 0 : 1;
