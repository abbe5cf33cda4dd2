/**
 * The container image: whole by its digests, the same bytes twice, and enough
 * for the program to start in as nobody, with nothing but itself to stand on.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { buildImage } from "../../scripts/build-image.ts";
import { holdfastPath, titled, whyWithoutHoldfast } from "./requirements.ts";

const ARCHITECTURE = process.arch === "x64" ? "amd64" : "arm64";
const why = whyWithoutHoldfast ?? (Bun.which("dpkg-query") === null ? "dpkg-query is not installed" : undefined);

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: string; readonly os: string };
}

describe.skipIf(why !== undefined)(titled("the container image", why), () => {
  let folder: string;
  let layout: string;
  let binaries: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "holdfast-image-"));
    binaries = join(folder, "bin");
    layout = join(folder, "layout");
    mkdirSync(binaries);
    mkdirSync(layout);
    copyFileSync(holdfastPath, join(binaries, `holdfast-linux-${process.arch}`));
    writeFileSync(join(folder, "image.tar"), build().bytes);
    run("tar", "-xf", join(folder, "image.tar"), "-C", layout);
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const build = () => buildImage({ binaries, only: ARCHITECTURE, name: "registry.example/holdfast:1" });

  function run(...command: string[]): string {
    const { stdout, stderr, exitCode } = Bun.spawnSync(command);
    if (exitCode !== 0) throw new Error(`${basename(command[0]!)}: ${stderr.toString()}`);
    return stdout.toString();
  }

  const json = (path: string) => JSON.parse(readFileSync(join(layout, path), "utf8"));

  function blob({ digest, size }: Descriptor): Buffer {
    const [algorithm, hex] = digest.split(":");
    const bytes = readFileSync(join(layout, "blobs", algorithm!, hex!));
    expect({ digest, size }).toEqual({
      digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`,
      size: bytes.length,
    });
    return bytes;
  }

  /** From the index down to the layers; an index may stand in an index. */
  function image(): {
    config: { config: Record<string, unknown>; rootfs: { diff_ids: string[] }; architecture: string };
    layers: Descriptor[];
  } {
    let [descriptor] = json("index.json").manifests as Descriptor[];
    let document = JSON.parse(blob(descriptor!).toString());
    while (document.manifests !== undefined) {
      descriptor = (document.manifests as Descriptor[]).find(({ platform }) => platform?.architecture === ARCHITECTURE);
      document = JSON.parse(blob(descriptor!).toString());
    }
    return { config: JSON.parse(blob(document.config).toString()), layers: document.layers };
  }

  test("is an OCI layout whose every digest and size is true", () => {
    expect(json("oci-layout")).toEqual({ imageLayoutVersion: "1.0.0" });
    const { config, layers } = image();
    const inside = layers.map((layer) => {
      const bytes = blob(layer);
      return `sha256:${createHash("sha256")
        .update(layer.mediaType.endsWith("gzip") ? Bun.gunzipSync(new Uint8Array(bytes)) : bytes)
        .digest("hex")}`;
    });
    expect(inside).toEqual(config.rootfs.diff_ids);
  });

  test("runs the program as nobody, and says where it comes from", () => {
    const { config } = image();
    expect(config.config).toMatchObject({ User: "65532:65532", Entrypoint: ["/holdfast"] });
    expect(config.architecture).toBe(ARCHITECTURE);
  });

  test("is the same bytes twice", () => {
    expect(build().digest).toBe(build().digest);
  }, 60_000);

  test("holds all that the program needs: it starts in it, as nobody, unable to write", () => {
    const root = join(folder, "root");
    mkdirSync(root);
    for (const layer of image().layers) {
      const path = join(folder, "layer.tar");
      const bytes = blob(layer);
      writeFileSync(path, layer.mediaType.endsWith("gzip") ? Bun.gunzipSync(new Uint8Array(bytes)) : bytes);
      run("tar", "-xf", path, "-C", root);
    }
    expect(existsSync(join(root, "bin/sh"))).toBe(false);
    mkdirSync(join(root, "proc"), { recursive: true });
    // A mount of its own, which ends with the process.
    const script = `mount --bind ${root} ${root} && mount -o remount,ro,bind ${root} && mount -t proc proc ${root}/proc && exec chroot --userspec=65532:65532 ${root} /holdfast version -o json`;
    const said = JSON.parse(run("unshare", "--mount", "--pid", "--fork", "sh", "-c", script));
    expect(said).toMatchObject({ program: "holdfast", platform: `linux/${ARCHITECTURE}` });
  }, 60_000);
});
