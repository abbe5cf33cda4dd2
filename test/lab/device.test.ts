/**
 * A device on amd64, from the first boot to power that goes: `device-story.ts`.
 * Once and at a few moments in CI; a hundred times, and at two hundred moments
 * of its disk, with --long.
 */
import { whyWithoutDevice } from "./device-image.ts";
import { cutsFor, deviceStory } from "./device-story.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";

const why = whyWithoutPodNetwork ?? whyWithoutDevice();
const cuts = cutsFor({ rounds: 1, onDisk: 5 }, { rounds: 100, onDisk: 200 });
deviceStory("amd64", titled("a device", why), why !== undefined, cuts);
