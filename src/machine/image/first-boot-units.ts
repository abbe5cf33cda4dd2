/**
 * The units of a device's first boots, beside those of every node (`units.ts`).
 *
 *   holdfast-clock.service       before anything asks for the time: the clock never stands
 *                                before the last moment that this device could trust
 *   holdfast-first-boot.service  until the device has joined: looks for the drop-in, joins
 *   holdfast-ssh-keys.service    host keys of its own, where the image was sealed of them
 *
 * The daemon's own unit waits for a configuration and a kubeconfig: on a device
 * that has not joined it would fail every second.
 */

import type { SystemFile } from "../units.ts";
import { UNIT_DIR } from "../places.ts";
import { DEFAULT_STATE_DIR } from "../../config/places.ts";
import { donePath } from "./first-boot.ts";

/** All of them, in the order in which they are named to a person. */
export function firstBootUnits(binary: string): SystemFile[] {
  const unit = (name: string, text: string): SystemFile => ({ path: `${UNIT_DIR}/${name}`, text, mode: 0o644 });
  return [
    unit("holdfast-clock.service", clockUnit()),
    unit("holdfast-first-boot.service", firstBootUnit(binary)),
    unit("holdfast-ssh-keys.service", sshKeysUnit()),
  ];
}

/**
 * systemd itself goes no further back than /usr/lib/clock-epoch, the image's
 * own date. In plain sh: the folder's times are what was last written on this
 * device, at most a few minutes before the power went.
 */
function clockUnit(): string {
  const state = DEFAULT_STATE_DIR;
  return `# Made by "holdfast image provision".
[Unit]
Description=Sets a clock that has forgotten the time to the last one this device knew
DefaultDependencies=no
RequiresMountsFor=${state}
After=local-fs.target
Before=time-set.target time-sync.target sysinit.target shutdown.target
Conflicts=shutdown.target
ConditionPathIsDirectory=${state}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'now=$$(date +%%s); for at in $$(stat -c %%Y ${state}/* ${state}/pki/* 2>/dev/null); do [ $$at -le $$now ] || now=$$at; done; [ $$now -le $$(date +%%s) ] || date -s @$$now'

[Install]
WantedBy=sysinit.target
`;
}

function firstBootUnit(binary: string): string {
  return `# Made by "holdfast image provision".
[Unit]
Description=Joins this device to its cluster by the file holdfast-join.yaml on the boot partition
ConditionPathExists=!${donePath(DEFAULT_STATE_DIR)}
RequiresMountsFor=${DEFAULT_STATE_DIR} /etc/kubernetes
After=local-fs.target containerd.service network.target time-set.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=${binary} image first-boot
Restart=on-failure
RestartSec=10
# A technician with a screen, and nothing else, must see what is wrong.
StandardOutput=journal+console
StandardError=journal+console
UMask=0077
StateDirectory=holdfast
StateDirectoryMode=0700
Environment=HOLDFAST_PROFILE=small
UnsetEnvironment=NODE_TLS_REJECT_UNAUTHORIZED NODE_OPTIONS BUN_OPTIONS BUN_BE_BUN LD_PRELOAD
LimitCORE=0

[Install]
WantedBy=multi-user.target
`;
}

function sshKeysUnit(): string {
  return `# Made by "holdfast image provision".
[Unit]
Description=Makes SSH host keys of this device's own where there are none
ConditionPathExists=/usr/bin/ssh-keygen
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service sshd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
`;
}
