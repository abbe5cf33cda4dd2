/**
 * Bad links: one that flaps, one that swallows all, one that is slow and loses
 * packets. The node works on, the API server is not asked for everything anew,
 * and no container is touched.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { identities, isLong, measured, NodeWorld, seconds } from "./node-world.ts";
import { ReadyWatch } from "./ready-watch.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";

const FLAPS = isLong ? 10 : 3;
const FLAP_MS = 5_000;
const BLACK_HOLE_MS = isLong ? 180_000 : 20_000;
const SLOW_MS = isLong ? 300_000 : 30_000;
/** Each way: a round trip of 600 ms, as by satellite. */
const DELAY_MS = 300;
const LOSS = 0.05;
/** After this long without a lease the node controller calls the node's pods not ready. */
const GRACE_MS = 50_000;

describe.skipIf(whyWithoutPodNetwork !== undefined)(titled("bad links", whyWithoutPodNetwork), () => {
  let edge: NodeWorld;
  beforeAll(async () => {
    edge = await NodeWorld.start();
  }, 240_000);
  afterAll(async () => await edge?.[Symbol.asyncDispose]());

  test(`a link that flaps, ${FLAPS} rounds`, async () => {
    await expectUntouched(edge, "flapping", async () => {
      for (let round = 0; round < FLAPS; round += 1) {
        edge.world.cut();
        await Bun.sleep(FLAP_MS / 2);
        edge.world.heal();
        await Bun.sleep(FLAP_MS / 2);
      }
    });
  });

  test(`a black hole for ${BLACK_HOLE_MS / 1000} s, in which a crashed container is started again`, async () => {
    await expectUntouched(edge, "black hole", async () => {
      const endsMs = performance.now() + BLACK_HOLE_MS;
      edge.world.drop();
      measured("black hole: crash to the container's restart", seconds((await edge.crash("lone")).tookMs));
      await Bun.sleep(endsMs - performance.now());
      edge.world.heal();
    });
  }, 420_000);

  test(`a round trip of ${2 * DELAY_MS} ms with ${LOSS * 100} % loss for ${SLOW_MS / 1000} s`, async () => {
    await expectUntouched(edge, "slow link", async () => {
      const endsMs = performance.now() + SLOW_MS;
      await using _slow = await edge.world.slowDown(DELAY_MS, LOSS);
      measured("slow link: until kubelet's lease is renewed", seconds(await edge.heardInCloud(Date.now())));
      measured("slow link: crash to the container's restart", seconds((await edge.crash("lone")).tookMs));
      await Bun.sleep(Math.max(0, endsMs - performance.now()));
      measured("slow link, at its end: until kubelet's lease is renewed", seconds(await edge.heardInCloud(Date.now())));
    });
  }, 420_000);
});

/** What must hold through and after any bad link; `lone` alone may have been started again. */
async function expectUntouched(edge: NodeWorld, title: string, whileBad: () => Promise<void>): Promise<void> {
  const pods = (await edge.allReadyInCloud()).map((pod) => pod.name);
  const before = identities(await edge.node.containers.running());
  const mark = edge.world.audit.mark();
  await using ready = ReadyWatch.start(edge.world);
  const startedMs = performance.now();

  await whileBad();

  const badMs = performance.now() - startedMs;
  measured(`${title}: until kubelet's lease is renewed after it`, seconds(await edge.heardInCloud(Date.now())));
  await edge.allReadyInCloud();
  const after = identities(await edge.node.containers.running());
  expect({ ...after, "lone/app": "" }).toEqual({ ...before, "lone/app": "" });
  expect(edge.fullReadsSince(mark).map((request) => `${request.userAgent} ${request.uri}`)).toEqual([]);
  for (const [pod, unreadyMs] of Object.entries(ready.unreadyMs(pods.filter((pod) => pod !== "lone")))) {
    measured(`${title}: ${pod} not Ready in the cloud`, seconds(unreadyMs));
    expect(unreadyMs, pod).toBeLessThan(badMs < GRACE_MS ? 1_000 : badMs);
  }
}
