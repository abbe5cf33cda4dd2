/**
 * The contract suite of the API server stand-in, held against the real one.
 *
 * What the fast tier believes about Kubernetes is what that suite says; here it
 * is shown to be true, release by release.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { titled, whySkipped } from "./requirements.ts";
import { startWorld, type World } from "./world.ts";

describe.skipIf(whySkipped !== undefined)(titled("the contract suite"), () => {
  test("holds against the real API server", async () => {
    await using world = await startWorld();
    await world.createNamespace("default");

    const output = await runContract(world, world.adminKubeconfig);

    expect(output).toContain(" 0 fail");
    expect(output).toMatch(/[1-9]\d* pass/);
  });
});

/** Runs the suite at the edge, in a process of its own: that is where the API server can be reached. */
async function runContract(world: World, kubeconfig: string): Promise<string> {
  const suite = join(import.meta.dir, "../contract/real.test.ts");
  const output = await world.runAtEdge([process.execPath, "test", suite, "--timeout=120000"], { HOLDFAST_CONTRACT_KUBECONFIG: kubeconfig }, 280_000);
  if (output.exitCode !== 0) console.error(output.stderr);
  return output.stdout + output.stderr;
}
