/**
 * An OCI archive: one image for several architectures in one tar file, as
 * `ctr images import`, `skopeo copy oci-archive:` and `podman load` take it.
 *
 *   oci-layout, index.json -> image index -> a manifest each -> config, layers
 *
 * Source: OCI image specification 1.1 (image-layout, image-index, manifest, config).
 */

import { gzipSync } from "node:zlib";
import { tarOf, type TarEntry } from "./tar.ts";

/** One architecture's image. */
export interface ImageContents {
  readonly architecture: "amd64" | "arm64";
  /** Lowest first. */
  readonly layers: readonly { readonly comment: string; readonly entries: readonly TarEntry[] }[];
  readonly labels: Readonly<Record<string, string>>;
}

/** What all have in common. */
export interface ImageOptions {
  /** With registry and tag, as containers ask for it. */
  readonly name: string;
  /** ISO 8601. */
  readonly created: string;
  readonly entrypoint: readonly string[];
  readonly user: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** An archive, and what it is called by those who trust digests only. */
export interface OciArchive {
  readonly bytes: Buffer;
  /** Of the image index: what a Deployment pins. */
  readonly digest: string;
  readonly manifests: readonly { readonly architecture: string; readonly digest: string; readonly sizeBytes: number }[];
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const TYPES = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};

/** Builds the archive; the same input gives the same bytes. */
export function ociArchive(images: readonly ImageContents[], options: ImageOptions): OciArchive {
  const blobs = new Map<string, Uint8Array>();
  const keep = (mediaType: string, bytes: Uint8Array): Descriptor => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const keepJson = (mediaType: string, value: object) => keep(mediaType, Buffer.from(JSON.stringify(value)));
  const manifests = images.map((image) => {
    const layers = image.layers.map(({ comment, entries }) => {
      const archive = tarOf(entries);
      return { comment, diffId: digestOf(archive), descriptor: keep(TYPES.layer, gzip(archive)) };
    });
    const config = keepJson(TYPES.config, configOf(image, layers, options));
    const manifest = keepJson(TYPES.manifest, {
      schemaVersion: 2,
      mediaType: TYPES.manifest,
      config,
      layers: layers.map(({ descriptor }) => descriptor),
      annotations: options.annotations,
    });
    const sizeBytes = layers.reduce((sum, { descriptor }) => sum + descriptor.size, manifest.size + config.size);
    return { manifest, platform: platformOf(image), sizeBytes };
  });
  const index = keepJson(TYPES.index, {
    schemaVersion: 2,
    mediaType: TYPES.index,
    manifests: manifests.map(({ manifest, platform }) => ({ ...manifest, platform })),
    annotations: options.annotations,
  });
  const names = {
    "io.containerd.image.name": options.name,
    "org.opencontainers.image.ref.name": options.name.slice(options.name.lastIndexOf(":") + 1),
  };
  const entry = { schemaVersion: 2, mediaType: TYPES.index, manifests: [{ ...index, annotations: names }] };
  const files: TarEntry[] = [
    { path: "oci-layout", bytes: Buffer.from(JSON.stringify({ imageLayoutVersion: "1.0.0" })) },
    { path: "index.json", bytes: Buffer.from(JSON.stringify(entry)) },
    ...[...blobs].map(([digest, bytes]) => ({ path: `blobs/${digest.replace(":", "/")}`, bytes })),
  ];
  return {
    bytes: tarOf(files),
    digest: index.digest,
    manifests: manifests.map(({ manifest, platform, sizeBytes }) => ({
      architecture: platform.architecture,
      digest: manifest.digest,
      sizeBytes,
    })),
  };
}

function configOf(
  image: ImageContents,
  layers: readonly { readonly comment: string; readonly diffId: string }[],
  { created, entrypoint, user }: ImageOptions,
): object {
  return {
    created,
    ...platformOf(image),
    config: {
      User: user,
      Env: ["PATH=/"],
      Entrypoint: entrypoint,
      WorkingDir: "/",
      Labels: image.labels,
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(({ comment }) => ({ created, comment })),
  };
}

function platformOf({ architecture }: ImageContents): { architecture: string; os: string; variant?: string } {
  return { architecture, os: "linux", ...(architecture === "arm64" ? { variant: "v8" } : {}) };
}

/** With nothing of the machine in its head: no date, and "unknown" for the operating system. */
function gzip(bytes: Uint8Array): Buffer {
  const packed = gzipSync(bytes, { level: 6 });
  packed.fill(0, 4, 8);
  packed[9] = 255;
  return packed;
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}
