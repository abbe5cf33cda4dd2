/**
 * Would each pod come back? What its copies give (node/coverage.ts), what lies
 * on the machine (images), and who wires it (network-plugin.ts), in one verdict.
 */

import type { CoveredPod, CoverageReport } from "../health/coverage-report.ts";
import type { Gap, NeededImage } from "../kube/pod-needs.ts";
import type { KeptPod, KeptPods } from "../node/coverage.ts";
import { hasImage, localImages, registryOf, type LocalImages } from "./container-images.ts";
import type { Machine } from "./machine.ts";
import { networkVerdict, type NetworkVerdict } from "./network-plugin.ts";

/** Judges what the copies say by this machine. @param nowMs when it was looked. */
export async function coverageOn(
  machine: Pick<Machine, "root">,
  kept: KeptPods,
  nowMs: number,
): Promise<CoverageReport> {
  const images = await localImages(machine);
  const network = networkVerdict(machine);
  return {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "Coverage",
    atMs: nowMs,
    node: [...kept.node],
    imagesFrom: typeof images === "string" ? "" : images.socket,
    pods: kept.pods
      .map((pod) => verdict(pod, images, network))
      .sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1)),
  };
}

function verdict(
  { needs, missing, unknown }: KeptPod,
  images: LocalImages | string,
  network: NetworkVerdict,
): CoveredPod {
  const wired: NetworkVerdict = needs.isHostNetwork ? { missing: [], unknown: [] } : network;
  const judged = needs.images.map((image) => judgeImage(image, images));
  const lacks = [...missing, ...judged.flatMap((one) => one.missing ?? []), ...wired.missing];
  const doubts = [...unknown, ...judged.flatMap((one) => one.unknown ?? []), ...wired.unknown];
  return {
    namespace: needs.namespace,
    name: needs.name,
    uid: needs.uid,
    comesBack: lacks.length > 0 ? "no" : doubts.length > 0 ? "unknown" : "yes",
    missing: lacks,
    unknown: doubts,
  };
}

/** Kubelet starts no container whose image it is to pull and cannot, though it lay here. */
function judgeImage(
  { image, isPulledAlways }: NeededImage,
  images: LocalImages | string,
): { readonly missing?: Gap; readonly unknown?: Gap } {
  const gap = (why: string): Gap => ({ kind: "image", name: image, why });
  const distance = isPulledAlways ? registryOf(image) : "here";
  if (distance === "far") return { missing: gap("imagePullPolicy Always: pulled at each start, from beyond the link") };
  if (typeof images === "string") return { unknown: gap(images) };
  if (!hasImage(images, image)) return { missing: gap("not on this machine") };
  return distance === "near" ? { unknown: gap("imagePullPolicy Always: its registry must answer") } : {};
}
