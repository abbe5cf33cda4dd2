import { expect, test } from "bun:test";
import { readFast } from "./http-fast.ts";
import { disagreement, readByNode, whyWithoutNode } from "./http-node.ts";
import { readStream } from "./http-reference.ts";
import { drawRequests } from "./http-requests.ts";
import { Draw } from "./random.ts";
import { TARGETS } from "./targets.ts";

const SAMPLE = 3_000;

for (const { name, sample, run } of TARGETS) {
  const why = name.endsWith("-node") ? whyWithoutNode : undefined;
  test.skipIf(why !== undefined)(
    `${name}: a sample of cases${why === undefined ? "" : ` [skipped: ${why}]`}`,
    async () => {
      expect(await run(Array.from({ length: sample }, (_, seed) => seed))).toEqual([]);
    },
  );
}

test("the cases reach every end: read whole, cut short, refused, and after a good one", () => {
  const ends = new Map<string, number>();
  for (let seed = 0; seed < SAMPLE; seed++) {
    const { end, requests } = readStream(drawRequests(new Draw(seed)));
    const key = `${end} behind ${Math.min(1, requests.length)}`;
    ends.set(key, (ends.get(key) ?? 0) + 1);
  }
  for (const end of ["whole", "short", "refused"])
    for (const behind of [0, 1])
      if (end !== "whole" || behind === 1) expect(ends.get(`${end} behind ${behind}`) ?? 0).toBeGreaterThan(5);
});

/** A reader that mends line ends, as lenient ones do: the comparison must find it out. */
test("a lenient reader is found out by the reference", () => {
  const lenient = (text: string) => readFast(text.replaceAll(/(?<!\r)\n/g, "\r\n"));
  const differing = Array.from({ length: SAMPLE }, (_, seed) => drawRequests(new Draw(seed))).filter(
    (text) => JSON.stringify(lenient(text)) !== JSON.stringify(readStream(text)),
  );
  expect(differing.length).toBeGreaterThan(10);
});

test.skipIf(whyWithoutNode !== undefined)("a request that is read as another is found out by Node", async () => {
  const text = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
  const [node] = await readByNode([text]);
  const ours = readFast(text);
  expect(disagreement(ours, node!)).toBeUndefined();
  const [first] = ours.requests;
  expect(disagreement({ ...ours, requests: [{ ...first!, body: "ab" }] }, node!)).toContain("request 0");
  expect(disagreement({ ...ours, requests: [first!] }, node!)).toBe("it reads more");
});
