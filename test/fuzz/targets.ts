/**
 * What is fuzzed: each target draws a case from a seed and holds it against a
 * second opinion.
 */

import { der } from "./der.ts";
import { admissionReview, configuration, kubeconfig } from "./files.ts";
import { gzipMembers } from "./gzip.ts";
import { jsonList, jsonWatch } from "./json-lists.ts";
import { strategicMerges } from "./merges.ts";
import { protobufList } from "./protobuf-lists.ts";
import { Draw } from "./random.ts";
import { readFast } from "./http-fast.ts";
import { disagreement, readByNode } from "./http-node.ts";
import { readStream } from "./http-reference.ts";
import { drawRequests } from "./http-requests.ts";
import { http2Frames, http2Heads } from "./http2-heads.ts";

/** A case that came out wrong. */
export interface Finding {
  readonly seed: number;
  readonly what: string;
}

/** Something to fuzz. */
export interface Target {
  readonly name: string;
  /** Cases of a sample; a slow target takes fewer. */
  readonly sample: number;
  /** Runs the cases of these seeds. */
  run(seeds: readonly number[]): Finding[] | Promise<Finding[]>;
}

/** Every target, by name. */
export const TARGETS: readonly Target[] = [
  { name: "http-requests", sample: 3_000, run: (seeds) => seeds.flatMap((seed) => againstReference(seed)) },
  { name: "http-requests-node", sample: 3_000, run: againstNode },
  drawn("http2-heads", http2Heads),
  drawn("http2-frames", http2Frames),
  drawn("json-list", jsonList),
  drawn("json-watch", jsonWatch),
  drawn("protobuf-list", protobufList),
  drawn("gzip-members", gzipMembers, 200),
  drawn("der", der),
  drawn("kubeconfig", kubeconfig, 300),
  drawn("configuration", configuration, 300),
  drawn("admission-review", admissionReview),
  drawn("strategic-merge", strategicMerges),
];

/** A target whose cases say themselves what is wrong. */
function drawn(
  name: string,
  check: (draw: Draw) => string | undefined | Promise<string | undefined>,
  sample = 1_000,
): Target {
  return {
    name,
    sample,
    async run(seeds) {
      const findings: Finding[] = [];
      for (const seed of seeds) {
        const what = await check(new Draw(seed));
        if (what !== undefined) findings.push({ seed, what });
      }
      return findings;
    },
  };
}

function againstReference(seed: number): Finding[] {
  const text = drawRequests(new Draw(seed));
  const [fast, slow] = [JSON.stringify(readFast(text)), JSON.stringify(readStream(text))];
  return fast === slow ? [] : [{ seed, what: `${JSON.stringify(text)}\n  ours      ${fast}\n  reference ${slow}` }];
}

async function againstNode(seeds: readonly number[]): Promise<Finding[]> {
  const texts = seeds.map((seed) => drawRequests(new Draw(seed)));
  const read = await readByNode(texts);
  return seeds.flatMap((seed, i) => {
    const difference = disagreement(readFast(texts[i]!), read[i]!);
    return difference === undefined
      ? []
      : [{ seed, what: `${difference}: ${JSON.stringify(texts[i])}\n  node ${JSON.stringify(read[i])}` }];
  });
}
