/**
 * The images of a lab's pods, which never leave the machine: a static busybox
 * for nearly all of them, and what kubeadm's add-ons run.
 */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

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
 * @param foreign busybox of another architecture, and Go's name for that.
 * @returns the path of the archive, for `ctr images import`.
 */
export function makeImage(
  directory: string,
  foreign?: { readonly busybox: string; readonly architecture: string },
): string {
  for (const folder of FOLDERS) mkdirSync(join(directory, "root", folder), { recursive: true });
  const bin = join(directory, "root/bin");
  copyFileSync(foreign?.busybox ?? Bun.which("busybox") ?? "/bin/busybox", join(bin, "busybox"));
  for (const word of SHELL_WORDS) symlinkSync("/bin/busybox", join(bin, word));
  return archived(directory, IMAGE, { Cmd: ["/bin/sleep", "100000000"], Env: ["PATH=/bin"] }, foreign?.architecture);
}

/**
 * Makes an image of programs of this machine, with the libraries they load.
 *
 * @param programs by their path in the image.
 * @param folders of this machine that go along whole.
 */
export function makeProgramImage(
  directory: string,
  name: string,
  {
    programs,
    folders = [],
    entrypoint,
  }: {
    readonly programs: Readonly<Record<string, string>>;
    readonly folders?: readonly string[];
    readonly entrypoint: string;
  },
): string {
  const root = join(directory, "root");
  for (const folder of FOLDERS) mkdirSync(join(root, folder), { recursive: true });
  const put = (from: string, to: string) => {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    if (!existsSync(join(root, to))) copyFileSync(realpathSync(from), join(root, to));
  };
  for (const [to, from] of Object.entries(programs)) {
    put(from, to);
    for (const library of librariesOf(from)) put(library, library);
  }
  for (const folder of folders) cpSync(folder, join(root, folder), { recursive: true, dereference: true });
  return archived(directory, name, { Entrypoint: [entrypoint], Env: ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"] });
}

function librariesOf(program: string): string[] {
  const { stdout } = Bun.spawnSync(["ldd", program], { stderr: "ignore" });
  return [...stdout.toString().matchAll(/(?:=> |^\s*)(\/\S+) \(/gm)].map(([, path]) => path!);
}

/** One layer of all below `root`. */
function archived(
  directory: string,
  name: string,
  run: object,
  architecture = process.arch === "x64" ? "amd64" : process.arch,
): string {
  tar(join(directory, "layer.tar"), join(directory, "root"), ["."]);
  const digest = createHash("sha256")
    .update(readFileSync(join(directory, "layer.tar")))
    .digest("hex");
  const config = {
    architecture,
    os: "linux",
    config: run,
    rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] },
  };
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  writeFileSync(
    join(directory, "manifest.json"),
    JSON.stringify([{ Config: "config.json", RepoTags: [name], Layers: ["layer.tar"] }]),
  );
  tar(join(directory, "image.tar"), directory, ["config.json", "layer.tar", "manifest.json"]);
  return join(directory, "image.tar");
}

function tar(archive: string, from: string, names: readonly string[]): void {
  const done = Bun.spawnSync(["tar", "-cf", archive, "-C", from, ...names], { stderr: "pipe" });
  if (!done.success) throw new Error(`Cannot make ${archive}: ${done.stderr.toString()}`);
}
