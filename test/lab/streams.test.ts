/**
 * kubectl's long-lived streams through Holdfast to a real kubelet: logs that
 * follow, and exec with its upgraded connection.
 */
import { describe, expect, test } from "bun:test";
import { LabNode } from "./node.ts";
import { until } from "./processes.ts";
import { startTalker } from "./talker.ts";
import { titled, whyWithoutNode } from "./requirements.ts";
import { startWorld } from "./world.ts";

const NAMESPACE = "shop";

describe.skipIf(whyWithoutNode !== undefined)(
  titled("streams of a real kubelet, through Holdfast", whyWithoutNode),
  () => {
    test("logs -f follows, exec carries input, output and exit code", async () => {
      await using world = await startWorld();
      await world.createNamespace(NAMESPACE);
      await using _node = await LabNode.start(world);
      await startTalker(world, NAMESPACE);
      await using holdfast = await world.startHoldfast();
      const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, { token: await world.tokenFor("person", ["*"]) });

      const follower = world.startKubectl(["logs", "-f", "talker", "-n", NAMESPACE], kubeconfig);
      const heard = follower.hear();
      await until("three more lines have come", () => /line 1\n[^]*line 2\n[^]*line 4\n/.test(heard()));
      expect(heard()).toStartWith("line 0\n");

      const tail = await world.kubectl(["logs", "talker", "-n", NAMESPACE, "--tail=1"], { kubeconfig });
      expect(tail.stdout).toMatch(/^line \d+\n$/);

      const echoed = await world.kubectl(
        ["exec", "-i", "talker", "-n", NAMESPACE, "--", "sh", "-c", "cat; echo aside >&2; exit 3"],
        { kubeconfig, input: "spoken\n" },
      );
      expect([echoed.stdout, echoed.exitCode]).toEqual(["spoken\n", 3]);
      expect(echoed.stderr).toStartWith("aside\n");
    });

    test("logs and exec are refused at once when the link is lost", async () => {
      await using world = await startWorld();
      await world.createNamespace(NAMESPACE);
      await using _node = await LabNode.start(world);
      await startTalker(world, NAMESPACE);
      await using holdfast = await world.startHoldfast();
      const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, { token: await world.tokenFor("person", ["*"]) });
      for (const args of [
        ["logs", "talker", "-n", NAMESPACE],
        ["exec", "talker", "-n", NAMESPACE, "--", "echo", "hello"],
      ]) {
        expect((await world.kubectl(args, { kubeconfig })).exitCode).toBe(0);
      }

      world.cut();

      for (const args of [
        ["logs", "talker", "-n", NAMESPACE],
        ["exec", "talker", "-n", NAMESPACE, "--", "echo", "hello"],
      ]) {
        const refused = await world.kubectl(args, { kubeconfig });
        expect(refused.exitCode).toBe(1);
        expect(refused.stderr).toMatch(
          /ServiceUnavailable|cannot be reached|unable to handle the request|unable to upgrade connection/,
        );
        expect(refused.tookMs).toBeLessThan(10_000);
      }
    });
  },
);
