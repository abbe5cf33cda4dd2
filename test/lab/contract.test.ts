/**
 * The contract suite of the API server stand-in, held against the real one.
 *
 * What the fast tier believes about Kubernetes is what that suite says; here it
 * is shown to be true, release by release. Holdfast is held to it as well: with
 * the link up, a client must not be able to tell.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { titled, whySkipped, whyWithoutHoldfast } from "./requirements.ts";
import { startWorld, type World } from "./world.ts";

/** Where a client can tell Holdfast from the API server, and why that may be so. */
const DIFFERENCES: readonly { readonly title: RegExp; readonly reason: string }[] = [
  {
    title: /no credential is refused .* with 403/,
    reason: "nobody enters without a credential: 401, since what is kept has no anonymous caller",
  },
  { title: /a resourceVersion from the future is 504 with its cause/, reason: "the same cause in other words" },
  {
    title: /a streaming list ends its initial events with an annotated bookmark/,
    reason: "Holdfast's own bookmarks carry creationTimestamp: null, as Kubernetes' did before 1.34",
  },
  {
    title: /bookmarks of pods and of custom resources have the kind's empty form/,
    reason: "Holdfast's own bookmarks are metadata alone",
  },
  {
    title: /a streaming list ahead of the server ends with an ERROR event of 504/,
    reason: "refused before the stream begins: clients list again either way",
  },
  {
    title: /only the first event of a Table watch carries the columns/,
    reason: "one stream serves watchers that begin at different moments",
  },
  {
    title: /a gzipped streaming list is one gzip member a flush/,
    reason: "on loopback nothing is gained by compressing",
  },
];

describe.skipIf(whySkipped !== undefined)(titled("the contract suite"), () => {
  test("holds against the real API server", async () => {
    await using world = await startWorld();
    await world.createNamespace("default");

    const { passed, failed, output } = await runContract(world, world.adminKubeconfig);

    expect(failed, output).toEqual([]);
    expect(passed).toBeGreaterThan(0);
  });
});

describe.skipIf(whyWithoutHoldfast !== undefined)(
  titled("the contract suite, through Holdfast", whyWithoutHoldfast),
  () => {
    test("holds while the link is up, but for the known differences", async () => {
      await using world = await startWorld();
      await world.createNamespace("default");
      const token = await world.tokenFor("suite", ["*"]);
      await using holdfast = await world.startHoldfast();

      const { passed, failed, output } = await runContract(world, world.proxyKubeconfig(holdfast.stateDir, { token }));

      expect(
        failed.filter((title) => !DIFFERENCES.some((known) => known.title.test(title))),
        output,
      ).toEqual([]);
      expect(passed).toBeGreaterThan(failed.length);
    });
  },
);

interface ContractResult {
  readonly passed: number;
  /** Titles. */
  readonly failed: readonly string[];
  readonly output: string;
}

/** Runs the suite at the edge, in a process of its own: that is where the API server can be reached. */
async function runContract(world: World, kubeconfig: string): Promise<ContractResult> {
  const suite = join(import.meta.dir, "../contract/real.test.ts");
  const { stdout, stderr } = await world.runAtEdge(
    [process.execPath, "test", suite, "--timeout=120000"],
    { HOLDFAST_CONTRACT_KUBECONFIG: kubeconfig },
    280_000,
  );
  const titles = (result: string) => [
    ...new Set((stdout + stderr).split("\n").filter((line) => line.startsWith(`(${result}) `))),
  ];
  return {
    passed: titles("pass").length,
    failed: titles("fail").map((line) => line.slice("(fail) ".length)),
    output: stdout + stderr,
  };
}
