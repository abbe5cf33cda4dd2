/**
 * The root file system of a device: Debian's packages, kubelet as kubeadm's
 * package has it, and a start that puts the data partition under it.
 */

import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Architecture } from "./debian.ts";
import { runTool } from "./tools.ts";

const SUITE = "bookworm";
/** What a node needs, and nothing that would want a network to start. */
const PACKAGES = [
  ..."systemd-sysv systemd-boot-efi systemd-timesyncd udev dbus kmod iproute2".split(" "),
  ..."containerd runc containernetworking-plugins iptables nftables conntrack ethtool socat".split(" "),
  ..."e2fsprogs dosfstools ca-certificates curl busybox-static zstd procps".split(" "),
];
/** Of no use on a device. */
const LEFT_OUT = [
  "usr/share/doc",
  "usr/share/man",
  "usr/share/locale",
  "usr/share/info",
  "var/lib/apt/lists",
  "var/cache/apt",
];

/** The packed root file system, made where it is not there as its list of packages is now; minutes. */
export function cachedRootfs(cache: string, arch: Architecture): string {
  const path = join(cache, `debian-${SUITE}-${arch}.tar`);
  const packages = [...PACKAGES, `linux-image-cloud-${arch}`];
  const key = createHash("sha256").update(packages.join(",")).digest("hex");
  if (existsSync(path) && existsSync(`${path}.key`) && readFileSync(`${path}.key`, "utf8") === key) return path;
  console.log(`image: making the root file system of Debian ${SUITE} for ${arch}, once; minutes`);
  const part = `${path}.part`;
  rmSync(part, { force: true });
  runTool([
    "mmdebstrap",
    "--format=tar",
    `--arch=${arch}`,
    "--variant=minbase",
    `--include=${packages.join(",")}`,
    SUITE,
    part,
  ]);
  renameSync(part, path);
  writeFileSync(`${path}.key`, key);
  return path;
}

/** Unpacks it. */
export function unpack(archive: string, root: string): void {
  mkdirSync(root, { recursive: true });
  const excludes = [...LEFT_OUT.map((path) => `--exclude=./${path}/*`), "--exclude=./dev/*"];
  runTool(["tar", "--numeric-owner", "-C", root, ...excludes, "-xf", archive]);
}

/** Puts in what Debian does not have. */
export function completeRoot(root: string, kubelet: string): void {
  copyFileSync(kubelet, join(root, "usr/bin/kubelet"));
  chmodSync(join(root, "usr/bin/kubelet"), 0o755);
  for (const [path, text] of Object.entries(FILES)) {
    const place = join(root, path);
    mkdirSync(dirname(place), { recursive: true });
    rmSync(place, { force: true });
    writeFileSync(place, text);
    chmodSync(place, path === INIT.slice(1) ? 0o755 : 0o644);
  }
  copyFileSync(join(import.meta.dir, "rauc/slot.sh"), join(root, SLOT_SCRIPT.slice(1)));
  chmodSync(join(root, SLOT_SCRIPT.slice(1)), 0o755);
  for (const folder of ["data", "boot/efi"]) mkdirSync(join(root, folder), { recursive: true });
  for (const unit of ["kubelet.service", "systemd-networkd.service"]) {
    const wants = join(root, "etc/systemd/system/multi-user.target.wants");
    mkdirSync(wants, { recursive: true });
    rmSync(join(wants, unit), { force: true });
    runTool(["ln", "-s", `/lib/systemd/system/${unit}`, join(wants, unit)]);
  }
}

/** What the kernel starts: systemd's forerunner. */
export const INIT = "/usr/lib/holdfast-image/init";

/** Says which slot runs and turns them, for people and for RAUC. */
export const SLOT_SCRIPT = "/usr/lib/holdfast-image/slot.sh";

const FILES: Readonly<Record<string, string>> = {
  [INIT.slice(1)]: `#!/bin/sh
# The root is a read-only slot: /var and the changes to /etc are on the data partition, which both slots share.
say() { echo "holdfast-image: $*" > /dev/console; }
data=/dev/disk/by-partlabel/data
n=0
while [ ! -e "$data" ] && [ "$n" -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
/sbin/e2fsck -p "$data" > /dev/null || [ $? -lt 4 ] || { say "the data partition is damaged, repairing it"; /sbin/e2fsck -y "$data"; }
if mount -o noatime "$data" /data; then
  mkdir -p /data/etc/upper /data/etc/work
  mount -t overlay etc -o lowerdir=/etc,upperdir=/data/etc/upper,workdir=/data/etc/work /etc || say "/etc cannot be written"
  mount --bind /data/var /var || say "/var cannot be written"
else
  say "there is no data partition: nothing is kept"
fi
exec /lib/systemd/systemd "$@"
`,
  "etc/fstab": "LABEL=HOLDFAST /boot/efi vfat ro,umask=0077,nofail 0 2\ntmpfs /tmp tmpfs mode=1777,nosuid,nodev 0 0\n",
  "etc/hostname": "gateway\n",
  "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
  "etc/resolv.conf": "# Filled by whoever brings the network up.\n",
  // Behind what the kernel's command line says (systemd-network-generator).
  "etc/systemd/network/90-wired.network": "[Match]\nType=ether\nName=!veth* !cni*\n\n[Network]\nDHCP=yes\n",
  "etc/modules-load.d/kubernetes.conf": "overlay\nbr_netfilter\n",
  "etc/sysctl.d/90-kubernetes.conf": "net.ipv4.ip_forward=1\nnet.bridge.bridge-nf-call-iptables=1\n",
  "etc/containerd/config.toml": `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
`,
  // As the packages of kubeadm and kubelet have them.
  "lib/systemd/system/kubelet.service": `[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
`,
  "lib/systemd/system/kubelet.service.d/10-kubeadm.conf": `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
`,
};
