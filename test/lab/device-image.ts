/**
 * The device's image for tests: what `scripts/images/debian.ts` makes, and over
 * it a shell on the second console, one image of containers and a pod network.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { imageCache, makeImage as makeDeviceImage, type Architecture } from "../../scripts/images/debian.ts";
import { runTool, whyNotMakeable } from "../../scripts/images/tools.ts";
import { programPath } from "./build.ts";
import { whyNoEmulator } from "./device-vm.ts";
import { bridgeConfig } from "./node-config.ts";
import { makeImage } from "./node-image.ts";
import { holdfastPath } from "./requirements.ts";

/** Why no device can be tried here. */
export function whyWithoutDevice(arch: Architecture = "amd64"): string | undefined {
  const rootfs = rootfsPath(arch);
  return (
    whyNoEmulator(arch) ??
    whyNotMakeable(arch) ??
    (existsSync(rootfs) ? undefined : `${rootfs} is not made; scripts/images/debian.ts makes it, in minutes`)
  );
}

/**
 * Makes it, or takes the one that was made of the same files.
 *
 * @returns the image's path, and what each step took where it was made.
 */
export async function makeTestImage(
  directory: string,
  arch: Architecture = "amd64",
): Promise<{ readonly path: string; readonly took: readonly string[] }> {
  const binary = arch === "amd64" ? holdfastPath : holdfastPath.replace(/x64$/, "arm64");
  const kubelet = programPath(arch === "amd64" ? "kubelet" : "kubelet-arm64");
  const output = join(imageCache, `device-test-${arch}-${keyOf([binary, kubelet])}.img`);
  if (existsSync(output)) return { path: output, took: [] };
  for (const name of readdirSync(imageCache))
    if (name.startsWith(`device-test-${arch}-`)) rmSync(join(imageCache, name), { recursive: true, force: true });
  const add = join(directory, "add");
  for (const [path, text] of Object.entries(FILES)) {
    mkdirSync(join(add, path, ".."), { recursive: true });
    writeFileSync(join(add, path), text);
  }
  mkdirSync(join(add, "usr/share/images"), { recursive: true });
  const app = makeImage(join(directory, "app"), arch === "arm64" ? foreignBusybox(directory) : undefined);
  copyFileSync(app, join(add, "usr/share/images/app.tar"));
  const config = join(directory, "config.yaml");
  writeFileSync(
    config,
    "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nkubeconfig: /etc/kubernetes/kubelet.conf\n",
  );
  // An emulator that is kept waiting misses the ticks by which the kernel tries its timer.
  const append = arch === "amd64" ? "no_timer_check" : undefined;
  return { path: output, took: await makeDeviceImage({ arch, kubelet, config, binary, add, append, output }) };
}

/** The one of the device's own root file system. */
function foreignBusybox(directory: string): { readonly busybox: string; readonly architecture: string } {
  runTool(["tar", "-C", directory, "-xf", rootfsPath("arm64"), "./usr/bin/busybox"]);
  return { busybox: join(directory, "usr/bin/busybox"), architecture: "arm64" };
}

function rootfsPath(arch: Architecture): string {
  return join(imageCache, `debian-bookworm-${arch}.tar`);
}

/** Of everything that goes into it. */
function keyOf(programs: readonly string[]): string {
  const root = join(import.meta.dir, "../..");
  const sources = ["scripts/images/*.ts", "src/machine/**/*", "test/lab/device-image.ts", "test/lab/node-image.ts"];
  const paths = sources.flatMap((pattern) => [...new Bun.Glob(pattern).scanSync({ cwd: root, absolute: true })]);
  const hash = new Bun.CryptoHasher("sha256");
  for (const path of [...programs, ...paths.sort()]) hash.update(readFileSync(path));
  return hash.digest("hex").slice(0, 16);
}

const SHELL_UNIT = `[Unit]
Description=A shell for the lab, on the second console
After=dev-hvc0.device
Requires=dev-hvc0.device
StartLimitIntervalSec=0
[Service]
# Set by whoever holds it open: the last one to close it resets it.
ExecStart=/bin/sh -c 'exec < /dev/hvc0 > /dev/hvc0 2>&1; stty raw -echo; exec /bin/sh'
Environment=HOME=/root PS1= PS2=
Restart=always
RestartSec=1
`;

const IMAGES_UNIT = `[Unit]
Description=Takes the images that came with this device into containerd's store
After=containerd.service
Before=kubelet.service
ConditionPathExists=!/var/lib/images-taken
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for one in /usr/share/images/*.tar; do ctr -n k8s.io images import $$one || exit 1; done; sync; touch /var/lib/images-taken'
Restart=on-failure
RestartSec=2
`;

const FILES: Readonly<Record<string, string>> = {
  "etc/cni/net.d/10-bridge.conflist": JSON.stringify(bridgeConfig("/var/lib/cni/leases", "10.244.1.0/24")),
  "usr/lib/systemd/system/lab-shell.service": SHELL_UNIT,
  "usr/lib/systemd/system/lab-images.service": IMAGES_UNIT,
  "etc/systemd/system/multi-user.target.d/lab.conf": "[Unit]\nWants=lab-shell.service lab-images.service\n",
  // On a machine that is busy with others an emulated device's own ones come later than systemd waits for them.
  "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStartSec=900\nDefaultDeviceTimeoutSec=900\n",
  // The pause image is the lab's own too.
  "etc/containerd/config.toml": `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/app:1"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
`,
};
