/**
 * Which images lie on this machine: asked of the container runtime itself.
 *
 * The runtime speaks gRPC over a unix socket, and of all of CRI one call is
 * needed: `runtime.v1.ImageService/ListImages`, an empty message in, and out
 *
 *   ListImagesResponse   images = 1
 *   Image                id = 1, repo_tags = 2, repo_digests = 3
 *
 * So there is no need of crictl, which many nodes do not have.
 *
 * Where kubelet's configuration names the socket, that one alone is asked.
 */

import { existsSync, readFileSync } from "node:fs";
import { fieldsOf, fieldText } from "../kube/protobuf-wire.ts";
import { callUnix } from "./grpc-call.ts";
import { placeOf, type Machine } from "./machine.ts";

/** Where runtimes listen when nobody says otherwise. */
const SOCKETS: readonly string[] = [
  "/run/containerd/containerd.sock",
  "/run/crio/crio.sock",
  "/var/run/cri-dockerd.sock",
  "/run/k3s/containerd/containerd.sock",
];
const LIST_IMAGES = "/runtime.v1.ImageService/ListImages";
const PATIENCE_MS = 3_000;
/** Ten thousand images. */
const MAX_BYTES = 8 * 1024 * 1024;

/** Images by every name they go by. */
export interface LocalImages {
  readonly socket: string;
  readonly names: ReadonlySet<string>;
}

/** The images of a machine; in words why nobody can tell. */
export async function localImages(machine: Pick<Machine, "root">): Promise<LocalImages | string> {
  const socket = socketOf(machine);
  if (socket === undefined) return "no container runtime's socket was found";
  try {
    const limits = { maxBytes: MAX_BYTES, patienceMs: PATIENCE_MS };
    const answer = await callUnix(placeOf(machine, socket), LIST_IMAGES, new Uint8Array(), limits);
    return { socket, names: imageNames(answer) };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return `the container runtime on ${socket} did not say: ${code ?? message}`;
  }
}

/** The socket that kubelet's configuration names, else the first one that is there. */
export function socketOf(machine: Pick<Machine, "root">): string | undefined {
  const read = (path: string) => {
    const place = placeOf(machine, path);
    return existsSync(place) ? readFileSync(place, "utf8") : "";
  };
  const flags = read("/var/lib/kubelet/kubeadm-flags.env");
  const config = read("/var/lib/kubelet/config.yaml");
  const [, named] =
    /--container-runtime-endpoint[= ](?:unix:\/\/)?([^\s"']+)/.exec(flags) ??
    /^containerRuntimeEndpoint:\s*["']?(?:unix:\/\/)?(\/[^\s"']+)/m.exec(config) ??
    [];
  return named ?? SOCKETS.find((path) => existsSync(placeOf(machine, path)));
}

/** Ids, tags and digests of all images of a ListImagesResponse. @throws {MalformedError} */
export function imageNames(response: Uint8Array): ReadonlySet<string> {
  const names = new Set<string>();
  for (const image of fieldsOf(response)) {
    if (image.number !== 1 || image.wireType !== 2) continue;
    for (const field of fieldsOf(response, image.start, image.end))
      if (field.number >= 1 && field.number <= 3 && field.wireType === 2) names.add(fieldText(response, field));
  }
  return names;
}

/** Whether an image, as a pod names it, is among them. */
export function hasImage({ names }: LocalImages, image: string): boolean {
  return names.has(image) || names.has(wholeImageName(image));
}

/**
 * A pod's name of an image as the runtime keeps it: "nginx" is
 * "docker.io/library/nginx:latest"; of a tag and a digest the digest counts.
 *
 * Source: github.com/distribution/reference, ParseNormalizedNamed and TagNameOnly.
 */
export function wholeImageName(image: string): string {
  const [, name = image, tag, digest] = /^(.+?)(?::([\w][\w.-]{0,127}))?(?:@([a-z0-9]+:[0-9a-f]+))?$/.exec(image) ?? [];
  const slash = name.indexOf("/");
  const host = slash < 0 ? "" : name.slice(0, slash);
  const hasHost = /[.:]/.test(host) || host === "localhost";
  const whole = hasHost ? name : `docker.io/${slash < 0 ? "library/" : ""}${name}`;
  return digest === undefined ? `${whole}:${tag ?? "latest"}` : `${whole}@${digest}`;
}

/** How far away an image's registry is, by its name: on this machine, perhaps in this place, or beyond the link. */
export function registryOf(image: string): "here" | "near" | "far" {
  const host = wholeImageName(image)
    .split("/", 1)[0]!
    .replace(/:[0-9]+$/, "");
  if (/^(localhost|127\..*|\[::1\])$/.test(host)) return "here";
  const isPrivate = /^(10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.|169\.254\.|\[f[cd])/.test(host);
  return isPrivate || !host.includes(".") || /\.(local|lan|internal|home|svc)$/.test(host) ? "near" : "far";
}
