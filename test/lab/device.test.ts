/**
 * A device on amd64, from the first boot to power that goes: `device-story.ts`.
 * Pods, power and the disk's moments are for --long: a round takes minutes where
 * the machine is emulated. `power.test.ts` cuts a smaller machine in CI.
 */
import { whyWithoutDevice } from "./device-image.ts";
import { cutsFor, deviceStory } from "./device-story.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";

const why = whyWithoutPodNetwork ?? whyWithoutDevice();
const cuts = cutsFor({ rounds: 0, onDisk: 0 }, { rounds: 100, onDisk: 200 });
deviceStory("amd64", titled("a device", why), why !== undefined, cuts);
