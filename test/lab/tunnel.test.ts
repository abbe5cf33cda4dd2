/**
 * A real kubectl beside a real API server, a real kubelet that nobody can dial,
 * and the tunnel between them: every verb, and what happens when its parts die.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isLong, measured, seconds } from "./node-world.ts";
import { type LabProcess, runProcess, until } from "./processes.ts";
import { titled, whyWithoutNode } from "./requirements.ts";
import { readmeLines, SHOP, TunnelWorld } from "./tunnel-world.ts";
import { NODE_NAME } from "./world.ts";

const MEGABYTE = 1024 * 1024;
const COPIED_BYTES = (isLong ? 200 : 20) * MEGABYTE;
const FOLLOWED_LINES = isLong ? 18_000 : 60;
const EXEC = ["exec", "talker", "-n", SHOP];
const SPDY = { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false", KUBECTL_PORT_FORWARD_WEBSOCKETS: "false" };

let tunnel: TunnelWorld;

/** Collects what a process says. */
function listen(process: LabProcess) {
  const heard = { text: "" };
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of process.stdout) heard.text += decoder.decode(chunk, { stream: true });
  })();
  return heard;
}

/** Waits until the agent's log says, after this mark, that it has lost its tunnel. */
const lostSince = async (mark: number) =>
  await until(
    "the agent has lost its tunnel",
    () => tunnel.holdfast.process.log.slice(mark).includes('"message":"tunnel lost"'),
    40_000,
  );

const nothingLeft = async () =>
  await until("no connection is left", async () => (await tunnel.streams()) === 0, 20_000);

describe.skipIf(whyWithoutNode !== undefined)(titled("kubectl through the tunnel", whyWithoutNode), () => {
  beforeAll(async () => void (tunnel = await TunnelWorld.start()), 240_000);
  afterAll(async () => await tunnel?.[Symbol.asyncDispose](), 60_000);

  test("nobody can dial the node; kubectl logs and exec reach its pod all the same", async () => {
    const { world } = tunnel;
    const probe = `try { await Promise.race([Bun.connect({ hostname: "${world.network.edgeAddress}", port: 10250, socket: { data() {} } }), Bun.sleep(2000).then(() => { throw 1 })]); console.log("open") } catch { console.log("closed") } process.exit()`;
    const dialled = await runProcess(world.network.within(world.network.cloud, [process.execPath, "-e", probe]));
    expect(dialled.stdout.trim()).toBe("closed");
    const startedMs = performance.now();
    const logs = await tunnel.kubectl(["logs", "talker", "-n", SHOP, "--tail=1"]);
    expect([logs.exitCode, logs.stdout]).toEqual([0, expect.stringMatching(/^line \d+\n$/)]);
    measured("kubectl logs --tail=1 through the tunnel, start to end", seconds(performance.now() - startedMs));
  }, 60_000);

  test("the README's five lines are what was done here, the last one now", async () => {
    const lines = readmeLines();
    expect(lines.length).toBe(5);
    expect(lines[3]).toBe("systemctl restart holdfast");
    const args = lines[4]!.replace("POD", `talker -n ${SHOP}`).replace("-it", "-i").split(" ").slice(1);
    const { stdout } = await tunnel.kubectl(args, { input: "echo inside $((6 * 7)); exit\n" });
    expect(stdout).toBe("inside 42\n");
  }, 30_000);

  test(
    "logs -f follows",
    async () => {
      const follower = tunnel.startKubectl(["logs", "-f", "talker", "-n", SHOP, "--tail=1"]);
      const heard = listen(follower);
      const lines = () => heard.text.split("\n").slice(0, -1);
      await until("lines have come", () => lines().length >= FOLLOWED_LINES, FOLLOWED_LINES * 200 + 20_000);
      const numbers = lines().map((line) => Number(line.replace("line ", "")));
      expect(numbers).toEqual(numbers.map((_, at) => numbers[0]! + at));
      await follower.stop("SIGKILL");
      await nothingLeft();
    },
    isLong ? 3_000_000 : 60_000,
  );

  test.each([
    ["WebSocket", {}],
    ["SPDY", SPDY],
  ])(
    "exec over %s carries input, output, errors and the exit code",
    async (_, env) => {
      const { stdout, stderr, exitCode } = await tunnel.kubectl(
        [...EXEC, "-i", "--", "sh", "-c", "cat; echo aside >&2; exit 3"],
        { input: "spoken\n", env },
      );
      expect([stdout, exitCode]).toEqual(["spoken\n", 3]);
      expect(stderr).toStartWith("aside\n");
    },
    30_000,
  );

  test("attach hears what the pod says from then on", async () => {
    const attached = tunnel.startKubectl(["attach", "talker", "-n", SHOP]);
    const heard = listen(attached);
    await until("three lines", () => (heard.text.match(/line \d+\n/g) ?? []).length >= 3, 20_000);
    await attached.stop("SIGKILL");
  }, 30_000);

  test.each([
    ["WebSocket", {}],
    ["SPDY", SPDY],
  ])(
    "port-forward over %s",
    async (_, env) => {
      const { world } = tunnel;
      const vars = Object.entries(env).map(([key, value]) => `${key}=${value}`);
      const forwarding = world.startCloudProgram(
        "port-forward",
        ["env", ...vars, ...tunnel.commandOf(["port-forward", "talker", "-n", SHOP, "18099:8099"])],
        "pipe",
      );
      const heard = listen(forwarding);
      await until("it listens", () => heard.text.includes("Forwarding from"), 20_000);
      for (let i = 0; i < 3; i++)
        expect((await world.fetchInCloud("http://127.0.0.1:18099/index.html")).trim()).toBe("page");
      await forwarding.stop("SIGKILL");
    },
    60_000,
  );

  test("cp both ways, compared by hash", async () => {
    const folder = join(tunnel.world.directory, "copied");
    mkdirSync(folder, { recursive: true });
    const sent = randomBytes(COPIED_BYTES);
    writeFileSync(join(folder, "sent"), sent);
    const startedMs = performance.now();
    const up = await tunnel.kubectl(["cp", join(folder, "sent"), `${SHOP}/talker:/tmp/copied`], { timeoutMs: 300_000 });
    expect([up.exitCode, up.stderr]).toEqual([0, ""]);
    const upMs = performance.now() - startedMs;
    const down = await tunnel.kubectl(["cp", `${SHOP}/talker:/tmp/copied`, join(folder, "back")], {
      timeoutMs: 300_000,
    });
    expect(down.exitCode).toBe(0);
    measured(
      `kubectl cp of ${COPIED_BYTES / MEGABYTE} MB up, down`,
      `${seconds(upMs)}, ${seconds(performance.now() - startedMs - upMs)}`,
    );
    const hash = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
    expect(hash(readFileSync(join(folder, "back")))).toBe(hash(sent));
  }, 600_000);

  test("what asks the node by its status follows: stats/summary by the API server's proxy", async () => {
    const stats = await tunnel.world.inCloud(["get", "--raw", `/api/v1/nodes/${NODE_NAME}/proxy/stats/summary`]);
    expect(JSON.parse(stats).node.nodeName).toBe(NODE_NAME);
  }, 30_000);

  test("a hundred followers that are broken off with Ctrl-C leave nothing", async () => {
    for (let round = 0; round < 10; round++) {
      const followers = Array.from({ length: 10 }, () => {
        const follower = tunnel.startKubectl(["logs", "-f", "talker", "-n", SHOP, "--tail=1"]);
        return { follower, heard: listen(follower) };
      });
      await until("each has heard something", () => followers.every(({ heard }) => heard.text !== ""), 60_000);
      await Promise.all(followers.map(async ({ follower }) => await follower.stop("SIGINT")));
    }
    await nothingLeft();
    expect(await tunnel.reached()).toBeLessThan(20_000);
  }, 240_000);

  test("one slow reader stalls nobody", async () => {
    const slow = tunnel.startKubectl([...EXEC, "--", "cat", "/dev/zero"]);
    // Its pipe is read by nobody: kubectl stops, and the API server, and the window.
    await until("it has a stream", async () => (await tunnel.streams()) > 0);
    const startedMs = Date.now();
    for (let i = 0; i < 5; i++) {
      const { stdout } = await tunnel.kubectl([...EXEC, "--", "echo", `${i}`]);
      expect(stdout).toBe(`${i}\n`);
    }
    measured("five kubectl exec beside a stalled one", seconds(Date.now() - startedMs));
    await slow.stop("SIGKILL");
    await nothingLeft();
  }, 60_000);

  describe("when something dies", () => {
    test("Holdfast on the node: back with its next start, at the same port", async () => {
      const port = async () => (await tunnel.place()).replace(/^.*:/, "");
      const before = await port();
      await tunnel.restartAgent("SIGKILL");
      // Whichever gateway it dials first: a node's port is the same at each.
      expect(await port()).toBe(before);
      await tunnel.placed();
      measured("Holdfast killed and started: kubectl exec reaches the pod", seconds(await tunnel.reached()));
    }, 60_000);

    test("the gateway that holds the tunnel: streams break, and the next exec works through the other", async () => {
      const at = (await tunnel.place()).replace(/:\d+$/, "");
      const index = tunnel.gateways.findIndex(({ address }) => address === at);
      const follower = tunnel.startKubectl(["logs", "-f", "talker", "-n", SHOP, "--tail=1"]);
      const heard = listen(follower);
      await until("it follows", () => heard.text !== "");
      const killedMs = Date.now();
      await tunnel.gateways[index]!.process.stop("SIGKILL");
      await until("the tunnel is at the other", async () => !(await tunnel.place()).startsWith(`${at}:`), 20_000);
      measured("gateway killed: the agent is at the other after", seconds(Date.now() - killedMs));
      expect(Date.now() - killedMs).toBeLessThan(3_000);
      await tunnel.placed();
      await tunnel.reached();
      measured("gateway killed: kubectl exec through the other works after", seconds(Date.now() - killedMs));
      await follower.stop("SIGKILL");
      await tunnel.restartGateway(index);
    }, 90_000);

    test(
      "the link, again and again: each time it comes back by itself",
      async () => {
        for (let i = 0; i < (isLong ? 10 : 2); i++) {
          const mark = tunnel.holdfast.process.log.length;
          tunnel.world.cut();
          await lostSince(mark);
          tunnel.world.heal();
          await until("it is open again", async () => await tunnel.place(), 60_000);
        }
        await tunnel.placed();
        measured("after the link came back: kubectl exec reaches the pod", seconds(await tunnel.reached()));
      },
      isLong ? 900_000 : 240_000,
    );

    test("a black hole is found within 20 s at both ends", async () => {
      const mark = tunnel.holdfast.process.log.length;
      tunnel.world.drop();
      const startedMs = Date.now();
      await lostSince(mark);
      measured("black hole: found by the agent after", seconds(Date.now() - startedMs));
      expect(Date.now() - startedMs).toBeLessThan(20_500);
      await until(
        "the gateways have found out",
        async () => {
          const held = await Promise.all(
            tunnel.gateways.map(async (gateway) => await gateway.metric("holdfast_gateway_agents")),
          );
          return held.every((count) => count === 0);
        },
        30_000,
      );
      tunnel.world.heal();
      await until("it is open again", async () => await tunnel.place(), 60_000);
      await tunnel.placed();
      await tunnel.reached();
    }, 180_000);
  });
});
