/**
 * The one image of every pod: a static busybox that never leaves the machine.
 */
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Its name, for `image:` beside `imagePullPolicy: Never`. */
export const IMAGE = "docker.io/local/app:1";
/** A name that a test may give it too, so that a pod's image can change. */
export const NEXT_IMAGE = "docker.io/local/app:2";

const SHELL_WORDS = [
  ..."sh sleep cat echo seq date ls mkdir touch test true tar hostname env".split(" "),
  ..."httpd nc nslookup kill printf".split(" "),
];
const FOLDERS = ["bin", "tmp", "etc", "proc", "sys", "dev", "www"];

/**
 * Makes an image archive of one layer that holds busybox and its names.
 *
 * @returns the path of the archive, for `ctr images import`.
 */
export function makeImage(directory: string): string {
  for (const folder of FOLDERS) mkdirSync(join(directory, "root", folder), { recursive: true });
  const bin = join(directory, "root/bin");
  copyFileSync(Bun.which("busybox") ?? "/bin/busybox", join(bin, "busybox"));
  for (const word of SHELL_WORDS) symlinkSync("/bin/busybox", join(bin, word));
  tar(join(directory, "layer.tar"), join(directory, "root"), ["."]);
  const digest = createHash("sha256")
    .update(readFileSync(join(directory, "layer.tar")))
    .digest("hex");
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const config = {
    architecture,
    os: "linux",
    config: { Cmd: ["/bin/sleep", "100000000"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] },
  };
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  writeFileSync(
    join(directory, "manifest.json"),
    JSON.stringify([{ Config: "config.json", RepoTags: [IMAGE], Layers: ["layer.tar"] }]),
  );
  tar(join(directory, "image.tar"), directory, ["config.json", "layer.tar", "manifest.json"]);
  return join(directory, "image.tar");
}

function tar(archive: string, from: string, names: readonly string[]): void {
  const done = Bun.spawnSync(["tar", "-cf", archive, "-C", from, ...names], { stderr: "pipe" });
  if (!done.success) throw new Error(`Cannot make ${archive}: ${done.stderr.toString()}`);
}
