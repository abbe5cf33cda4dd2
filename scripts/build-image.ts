/**
 * The container image of guard and gateway, as an OCI archive for amd64 and
 * arm64, built without a daemon and without the network.
 *
 *   bun run image                           dist/holdfast-image.tar, from freshly built executables
 *   bun run image --binaries dist           from executables that are there
 *   bun run image --only amd64              for one architecture, where the other's C library is missing
 *   bun run image --output FILE --name registry.example/holdfast:1.2
 *
 * It holds the same /holdfast that nodes run, and under it the C library that
 * it is linked against; see image/base.ts. It runs as 65532, needs no writable
 * file system, and has no shell. From the same executables and the same C
 * library it is the same bytes every time.
 *
 *   ctr -n k8s.io images import dist/holdfast-image.tar
 *   skopeo copy --all oci-archive:dist/holdfast-image.tar docker://registry.example/holdfast:1.2
 */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { TARGETS } from "./build-targets.ts";
import { USER_ID, baseFor } from "./image/base.ts";
import { ociArchive, type ImageContents, type OciArchive } from "./image/oci.ts";
import { needsOf } from "../src/base/elf.ts";
import { projectRoot, run } from "./setup.ts";

/** What the executables say of themselves. */
interface Provenance {
  readonly version: string;
  readonly commit: string;
  /** ISO 8601: the commit's, not today's. */
  readonly builtAt: string;
}

/** What an image is built from. */
export interface ImageSource {
  /** Folder with the executables of all targets. */
  readonly binaries: string;
  /** Default `holdfast.dev/holdfast:VERSION`. */
  readonly name?: string;
  /** "amd64" or "arm64"; default both. */
  readonly only?: string;
}

/** An image's words for what the runtime calls otherwise. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };
const SOURCE_URL = "https://holdfast.dev";

/**
 * Builds the archive in memory.
 *
 * @throws when an executable is missing, is not the one its checksum names, or a library it needs is not on this machine.
 */
export function buildImage({ binaries, name, only }: ImageSource): OciArchive & { readonly name: string } {
  const targets = TARGETS.filter(({ arch }) => only === undefined || only === ARCHITECTURES[arch]);
  if (targets.length === 0) throw new Error(`Cannot build the image for "${only}": expected amd64 or arm64`);
  const provenance = identify(binaries, targets);
  const fullName = name ?? `holdfast.dev/holdfast:${provenance.version}`;
  const annotations = {
    "org.opencontainers.image.created": provenance.builtAt,
    "org.opencontainers.image.description":
      "Keeps a Kubernetes node at work while its link to the control plane is gone",
    "org.opencontainers.image.licenses": "Apache-2.0 AND LGPL-2.1-or-later",
    "org.opencontainers.image.revision": provenance.commit,
    "org.opencontainers.image.title": "holdfast",
    "org.opencontainers.image.url": SOURCE_URL,
    "org.opencontainers.image.version": provenance.version,
  };
  const archive = ociArchive(
    targets.map((row) => contentsOf(join(binaries, row.name), annotations)),
    {
      name: fullName,
      created: provenance.builtAt,
      entrypoint: ["/holdfast"],
      user: `${USER_ID}:${USER_ID}`,
      annotations,
    },
  );
  return { ...archive, name: fullName };
}

function contentsOf(path: string, labels: Readonly<Record<string, string>>): ImageContents {
  const executable = readFileSync(path);
  checkSum(path, executable);
  const { entries, libc } = baseFor(executable, path);
  return {
    architecture: needsOf(executable, path).machine,
    layers: [
      { comment: `${libc.name} ${libc.version}, accounts, licences`, entries },
      {
        comment: "holdfast",
        entries: [
          { path: "holdfast", bytes: executable, mode: 0o755 },
          { path: "usr/share/doc/holdfast/LICENSE", bytes: readFileSync(join(projectRoot, "LICENSE")) },
        ],
      },
    ],
    labels: {
      ...labels,
      "dev.holdfast.libc.package": libc.name,
      "dev.holdfast.libc.version": libc.version,
      "dev.holdfast.libc.source": libc.source,
      "dev.holdfast.libc.licence": libc.licence,
    },
  };
}

/** All targets are built from one commit in one run; the one that starts here speaks for them. */
function identify(binaries: string, targets: typeof TARGETS): Provenance {
  const missing = targets.find(({ name }) => !existsSync(join(binaries, name)));
  if (missing !== undefined)
    throw new Error(`Cannot build the image: no ${missing.name} in "${binaries}"; run: bun run build`);
  const own = targets.find(({ arch }) => arch === process.arch);
  if (own === undefined) throw new Error(`Cannot build the image on this machine: no target for "${process.arch}"`);
  const said = Bun.spawnSync([join(binaries, own.name), "version", "-o", "json"], { stdout: "pipe", stderr: "pipe" });
  return JSON.parse(said.stdout.toString()) as Provenance;
}

function checkSum(path: string, bytes: Uint8Array): void {
  if (!existsSync(`${path}.sha256`)) return;
  const [expected] = readFileSync(`${path}.sha256`, "utf8").split(" ");
  const digest = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
  if (digest !== expected) throw new Error(`Cannot trust "${path}": its checksum is not the one beside it`);
}

function main(args: readonly string[]): void {
  const { values } = parseArgs({
    args: [...args],
    options: {
      output: { type: "string" },
      binaries: { type: "string" },
      name: { type: "string" },
      only: { type: "string" },
    },
    strict: true,
  });
  if (values.binaries === undefined) run([process.execPath, "scripts/build-targets.ts"]);
  const output = resolve(values.output ?? join(projectRoot, "dist", "holdfast-image.tar"));
  const image = buildImage({
    binaries: resolve(values.binaries ?? join(projectRoot, "dist")),
    ...(values.name === undefined ? {} : { name: values.name }),
    ...(values.only === undefined ? {} : { only: values.only }),
  });
  mkdirSync(dirname(output), { recursive: true });
  const partial = `${output}.${process.pid}`;
  try {
    writeFileSync(partial, image.bytes);
    renameSync(partial, output);
  } finally {
    rmSync(partial, { force: true });
  }
  console.log(`${output}: ${image.name}, ${(image.bytes.length / 1e6).toFixed(1)} MB`);
  console.log(`  index ${image.digest}`);
  for (const { architecture, digest, sizeBytes } of image.manifests)
    console.log(`  ${architecture} ${digest}, ${(sizeBytes / 1e6).toFixed(1)} MB to pull`);
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error((error as Error).message);
    process.exit(1);
  }
}
