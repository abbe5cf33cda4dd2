/**
 * A device on arm64, with --long: the story of `device-story.ts` on an emulated
 * Cortex-A72, ten cuts of its power. Its kubelet is built for it; the control
 * plane is this machine's.
 */
import { isBuilt } from "./build.ts";
import { whyWithoutDevice } from "./device-image.ts";
import { cutsFor, deviceStory } from "./device-story.ts";
import { isLong } from "./node-world.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";

const why =
  whyWithoutPodNetwork ??
  (isLong ? undefined : "takes --long") ??
  whyWithoutDevice("arm64") ??
  (isBuilt("kubelet-arm64") ? undefined : "kubelet-arm64 is not built; --long builds it");
deviceStory(
  "arm64",
  titled("a device on arm64", why),
  why !== undefined,
  cutsFor({ rounds: 0, onDisk: 0 }, { rounds: 10, onDisk: 50 }),
);
