/**
 * A machine without a clock battery boots while the link is cut, with a stock
 * kubelet: both it and Holdfast live in 1970, then the time jumps to now, then
 * the link returns. Steps of one story, in order.
 *
 * containerd, kube-proxy and CoreDNS keep the machine's time, which nobody may
 * change: a container that kubelet starts in 1970 was made half a century later,
 * and so it is probed only after the jump.
 */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Container } from "./containers.ts";
import { identities, measured, NodeWorld, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutNodeClock } from "./requirements.ts";
import { CONTAINERS, NAMESPACE, SECRET_TEXT } from "./workload.ts";
import { NODE_NAME } from "./world.ts";
import { WrongClock } from "./wrong-clock.ts";

/** As klog and Holdfast's log write that day. */
const IN_1970 = { kubelet: /^[IWE]0101 00:0/m, holdfast: '"time":"1970-01-01' };
/** How long containers are watched for a restart that must not come: kubelet's sync is no slower. */
const QUIET_MS = 10_000;

describe.skipIf(whyWithoutNodeClock !== undefined)(
  titled("boot at 1970 while cut, with a kubelet that lives there too", whyWithoutNodeClock),
  () => {
    let edge: NodeWorld;
    let clock: WrongClock;
    let kept: Kept;
    let uids: readonly string[] = [];
    let running: readonly Container[] = [];
    let mark = 0;
    beforeAll(async () => {
      edge = await NodeWorld.start();
      clock = new WrongClock(edge.node.directory);
      edge.finishLaterJob();
      await until("the Job has ended", async () =>
        (await edge.cloudPods()).some((pod) => pod.name.startsWith("later") && pod.phase === "Succeeded"),
      );
      await edge.allRunning();
    }, 240_000);
    afterAll(async () => await edge?.[Symbol.asyncDispose]());

    test(`${CONTAINERS} of ${CONTAINERS} containers come back in 1970, and no Job runs again`, async () => {
      const before = (await edge.allRunning()).map(({ pod }) => pod);
      kept = await whatIsKept(edge);
      expect(kept.tokens).not.toBeEmpty();
      uids = (await edge.cloudPods()).map((pod) => pod.uid).toSorted();
      mark = edge.world.audit.mark();
      edge.world.cut();
      await edge.holdfast.stop("SIGKILL");
      await edge.node.reboot({ forgetContainers: true });
      expect(await edge.node.containers.running()).toEqual([]);
      const startedMs = await bootIn1970(edge, clock);
      running = await edge.allRunning();

      const lastMs = Math.max(...running.map((container) => container.startedAtMs));
      measured("boot at 1970 while cut, kubelet's start to the last container", seconds(lastMs - startedMs));
      expect(edge.node.log("kubelet")).toMatch(IN_1970.kubelet);
      expect(edge.holdfast.process.log).toContain(IN_1970.holdfast);
      expect(running.map(({ pod }) => pod)).toEqual(before);
      expect([edge.runsOf("once"), edge.runsOf("later")]).toEqual([1, 1]);
    });

    test("a container that crashes in 1970 is started again, with its Secret and token", async () => {
      const again = await crash(edge, "configured", "in 1970");
      expect(await within(edge, again, "cat /secret/password")).toBe(SECRET_TEXT);
      expect(claimsOf(await within(edge, again, "cat /token/token"))).toMatchObject({ aud: ["vault"] });
      running = await edge.allRunning();
    });

    test("the time jumps to now: no container is touched, and a crash is still mended", async () => {
      clock.tellTheTruth();
      // What was being written then may still bear the old date.
      await Bun.sleep(1_000);
      const logFrom = edge.node.log("kubelet").length;
      await Bun.sleep(QUIET_MS);
      expect(identities(await edge.node.containers.running())).toEqual(identities(running));
      expect(edge.node.log("kubelet").slice(logFrom)).not.toMatch(IN_1970.kubelet);

      await crash(edge, "lone", "after the jump");
      running = await edge.allRunning();
      // Of half a century nothing is to be told.
      expect(await edge.askHoldfast(["status"])).toMatch(/^OFFLINE [^ ]*[smh] /);
    });

    test("the link returns: no container is touched, the node is ready, nothing is listed anew", async () => {
      const healedMs = Date.now();
      edge.world.heal();
      measured("link back after 1970, until kubelet's lease is renewed", seconds(await edge.heardInCloud(healedMs)));
      await edge.allReadyInCloud();
      await Bun.sleep(QUIET_MS);

      await edge.allReadyInCloud();
      expect(identities(await edge.node.containers.running())).toEqual(identities(running));
      expect((await edge.cloudPods()).map((pod) => pod.uid).toSorted()).toEqual([...uids]);
      expect([edge.runsOf("once"), edge.runsOf("later")]).toEqual([1, 1]);
      // Slices were edited while cut: theirs is the one copy that is fetched anew.
      const lists = edge.fullReadsSince(mark).filter((request) => request.resource !== "endpointslices");
      expect(lists.map((request) => `${request.userAgent} ${request.uri}`)).toEqual([]);
    });

    test("what happened in 1970 reached the cloud", async () => {
      await until("its events are there", async () => {
        const events = await edge.world.inCloud(["get", "events", "-n", NAMESPACE, "-o", "json"]);
        return (JSON.parse(events) as Events).items.some(
          ({ reason, involvedObject, firstTimestamp }) =>
            reason === "Started" &&
            involvedObject.name === "configured" &&
            firstTimestamp?.startsWith("1970-") === true,
        );
      });
    });

    test("kubelet's certificate and the pods' tokens are what they were, and good", async () => {
      const refused = edge.world.audit.since(mark).filter((request) => request.code === 401);
      expect(refused.map((request) => request.uri)).toEqual([]);
      const token = await within(edge, await edge.containerOf("configured"), "cat /token/token");
      const review = JSON.stringify({
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token, audiences: ["vault"] },
      });
      expect(await edge.world.inCloud(["create", "-f", "-", "-o", "jsonpath={.status.authenticated}"], review)).toBe(
        "true",
      );
      // Its lease was renewed with the certificate; and no 1970 was left in its node.
      const heartbeat = 'jsonpath={.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}';
      const beat = await edge.world.inCloud(["get", "node", NODE_NAME, "-o", heartbeat]);
      expect(Date.now() - Date.parse(beat)).toBeLessThan(3_600_000);
    });

    test("no row and no credential was deleted", async () => {
      const now = await whatIsKept(edge);
      expect(kept.scopes.filter((scope) => !now.scopes.includes(scope))).toEqual([]);
      expect(kept.answers.filter((answer) => !now.answers.includes(answer))).toEqual([]);
      expect(kept.tokens.filter((token) => !now.tokens.includes(token))).toEqual([]);
    });

    test("a boot at 1970 while the link stands: served from the copy until the time is there", async () => {
      await edge.holdfast.stop("SIGKILL");
      await edge.node.reboot({ forgetContainers: true });
      await bootIn1970(edge, clock);
      running = await edge.allRunning();
      // No API server's certificate is valid yet.
      expect(await edge.askHoldfast(["status"])).toStartWith("OFFLINE ");

      clock.tellTheTruth();
      const setMs = Date.now();
      measured("boot at 1970, the time set until kubelet's lease is renewed", seconds(await edge.heardInCloud(setMs)));
      await edge.allReadyInCloud();
      await Bun.sleep(QUIET_MS);
      expect(identities(await edge.node.containers.running())).toEqual(identities(running));
      expect((await edge.cloudPods()).map((pod) => pod.uid).toSorted()).toEqual([...uids]);
    });
  },
);

/** Starts all that a boot starts. @returns when kubelet was started, by the true clock. */
async function bootIn1970(edge: NodeWorld, clock: WrongClock): Promise<number> {
  clock.set(60_000);
  await edge.startHoldfast(clock);
  const startedMs = Date.now();
  edge.startKubelet(clock);
  edge.startNetworkParts();
  return startedMs;
}

interface Events {
  readonly items: readonly { reason: string; involvedObject: { name: string }; firstTimestamp?: string }[];
}

/** Names of what is on disk; a scope's with how many objects it holds. */
interface Kept {
  readonly scopes: readonly string[];
  readonly answers: readonly string[];
  readonly tokens: readonly string[];
}

async function whatIsKept(edge: NodeWorld): Promise<Kept> {
  const listed = JSON.parse(await edge.askHoldfast(["cache", "ls", "-o", "json"])) as {
    readonly scopes: readonly Record<string, unknown>[];
    readonly answers: readonly { readonly key: object }[];
  };
  using database = new Database(join(edge.holdfast.stateDir, "cache.db"), { readonly: true });
  const rows = database.query("SELECT name FROM kept_values WHERE name LIKE 'token/%'").all() as { name: string }[];
  return {
    scopes: listed.scopes.map(({ bytes: _, resourceVersion: _2, lastContactMs: _3, ...scope }) =>
      JSON.stringify(scope),
    ),
    // A recording of a pod or node goes with kubelet's next write of it; the rows of their lists stay.
    answers: listed.answers.map(({ key }) => JSON.stringify(key)).filter((key) => !/\/(pods|nodes)\//.test(key)),
    tokens: rows.map(({ name }) => name),
  };
}

/** Kills a container's process. @returns the container that kubelet has started instead. */
async function crash(edge: NodeWorld, pod: string, when: string): Promise<Container> {
  const { again, tookMs } = await edge.crash(pod);
  measured(`crash ${when}, to the container's restart`, seconds(tookMs));
  return again;
}

async function within(edge: NodeWorld, container: Container, command: string): Promise<string> {
  return (await edge.node.containers.exec(container, ["sh", "-c", command])).stdout.trim();
}

function claimsOf(token: string): unknown {
  return JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
}
