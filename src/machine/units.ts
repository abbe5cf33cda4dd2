/**
 * The unit files of a node: one source for the installer, images and documents.
 *
 *   holdfast.service           the daemon, before kubelet, with no start limit, in a sandbox
 *   holdfast-seal-key.service  opens the sealing key, in a unit of its own: a key that
 *                              cannot be opened (another machine's card, a slow TPM) must
 *                              not keep the daemon down, which systemd would do
 *   holdfast-bypass.*          a look every minute, in plain sh, whether kubelet must
 *                              go its direct way (bypass.sh)
 *   holdfast-pods.service      leads the port that pods are told to the daemon (pod-way.sh)
 *
 * Kubelet is never bound to us: only `Wants` and `After` stand in its drop-in.
 *
 * `Type=exec`: readiness is told by a message to a datagram socket, which the
 * runtime cannot send, and there is no FFI. So the start is over when the admin
 * socket answers, or ten seconds later: kubelet waits that long at most.
 *
 * The daemon stays root, whose files kubelet's certificate and the cluster's CA
 * are, but root without a capability and in a user namespace of its own. Not in
 * the sandbox, with the reason: `MemoryDenyWriteExecute` ends the just-in-time
 * compiler (the small profile has none); `ProtectProc=invisible` would hide the
 * owners of folders in /dev/shm, which would then be cleared away.
 */

import type { Profile } from "../base/reexec.ts";
import BYPASS_SCRIPT from "./bypass.sh" with { type: "text" };
import POD_WAY_SCRIPT from "./pod-way.sh" with { type: "text" };
import { BYPASS_PATH, CONFIG_FILE, KUBELET_DROP_IN, POD_WAY_FILE, POD_WAY_PATH, UNIT_DIR } from "./places.ts";

/** A file of the system: its path, what stands in it. */
export interface SystemFile {
  readonly path: string;
  readonly text: string;
  readonly mode: number;
}

/** What may differ between machines. */
export interface UnitOptions {
  readonly profile: Profile;
  /** Where the executable lies. */
  readonly binary: string;
}

/**
 * Ceilings, not reservations. Above the peaks in docs/figures.md (109 MB with
 * 5,000 slices and twenty lists, half of it the executable's own pages): right
 * below the limit the kernel would drop those pages and read them back for ever.
 */
const MEMORY_MAX: Readonly<Record<Profile, string>> = { small: "128M", default: "192M" };

/** What would run foreign code in us, switch verification off, print tokens, or lead requests elsewhere (`base/environment.ts`). Proxies stay: they are read with care. */
const NEVER_INHERITED = [
  "NODE_TLS_REJECT_UNAUTHORIZED",
  "NODE_EXTRA_CA_CERTS",
  "NODE_OPTIONS",
  "BUN_CONFIG_VERBOSE_FETCH",
  "BUN_OPTIONS",
  "BUN_BE_BUN",
  "BUN_INSPECT",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "SSLKEYLOGFILE",
  "LD_PRELOAD",
  "LD_LIBRARY_PATH",
];

/** `AF_NETLINK`: the resolver asks the kernel for its addresses. `@resources`: the runtime raises its own file limit and takes a no. */
const SANDBOX = `UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
PrivateUsers=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=noaccess
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
DevicePolicy=closed
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM`;

/** All files, in the order in which they are named to a person. */
export function unitFiles(options: UnitOptions): SystemFile[] {
  const unit = (name: string, text: string): SystemFile => ({ path: `${UNIT_DIR}/${name}`, text, mode: 0o644 });
  return [
    unit("holdfast.service", daemonUnit(options)),
    unit("holdfast-seal-key.service", sealKeyUnit()),
    unit("holdfast-bypass.service", bypassUnit()),
    unit("holdfast-bypass.timer", bypassTimer()),
    unit("holdfast-pods.service", podsUnit()),
    { path: BYPASS_PATH, text: BYPASS_SCRIPT, mode: 0o755 },
    { path: POD_WAY_PATH, text: POD_WAY_SCRIPT, mode: 0o755 },
  ];
}

function daemonUnit({ profile, binary }: UnitOptions): string {
  return `# Made by "holdfast units". Changes belong into a drop-in: systemctl edit holdfast
[Unit]
Description=Holdfast, keeps this Kubernetes node at work without its control plane
Wants=holdfast-seal-key.service
After=holdfast-seal-key.service local-fs.target
Before=kubelet.service
ConditionPathExists=${CONFIG_FILE}
# Never given up: kubelet's way leads through here.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=${binary} run
# Started means: the admin socket answers. Kubelet waits for that, ten seconds at most.
ExecStartPost=-/bin/sh -c 'read -r now _ < /proc/uptime; end=$$(($\${now%%%%.*} + 10)); while [ $\${now%%%%.*} -lt $$end ]; do ${binary} status >/dev/null 2>&1; [ $$? -eq 1 ] || exit 0; sleep 0.2; read -r now _ < /proc/uptime; done'
# Beyond that and one slow look: a small machine starts this program in seconds while all else starts too.
TimeoutStartSec=90
Restart=always
RestartSec=1
TimeoutStopSec=15
Environment=HOLDFAST_PROFILE=${profile}
EnvironmentFile=-/etc/holdfast/environment
UnsetEnvironment=${NEVER_INHERITED.join(" ")}
StateDirectory=holdfast
StateDirectoryMode=0700
RuntimeDirectory=holdfast
RuntimeDirectoryMode=0700
ConfigurationDirectory=holdfast
ConfigurationDirectoryMode=0700
# From /etc/credstore, or from /run/credstore where holdfast-seal-key.service put it; none is no fault.
LoadCredential=holdfast-seal-key
MemoryMax=${MEMORY_MAX[profile]}
OOMScoreAdjust=-900
TasksMax=256
LimitNOFILE=65536
# Not 0: where dumps go to a program, only 1 keeps the kernel from starting it (fs/coredump.c).
LimitCORE=1

${SANDBOX}
${profile === "small" ? "MemoryDenyWriteExecute=yes\n" : ""}
[Install]
WantedBy=multi-user.target
`;
}

function sealKeyUnit(): string {
  const sealed = "/etc/credstore.encrypted/holdfast-seal-key";
  return `# Made by "holdfast units".
[Unit]
Description=Opens the key that seals what Holdfast keeps
ConditionPathExists=${sealed}
Before=holdfast.service

[Service]
Type=oneshot
RemainAfterExit=yes
# A TPM has been seen to take two hours.
TimeoutStartSec=10
UMask=0077
ExecStartPre=/bin/mkdir -p -m 0700 /run/credstore
ExecStart=/usr/bin/systemd-creds decrypt --name=holdfast-seal-key ${sealed} /run/credstore/holdfast-seal-key
ExecStop=/bin/rm -f /run/credstore/holdfast-seal-key
LimitCORE=0
`;
}

function podsUnit(): string {
  return `# Made by "holdfast units".
[Unit]
Description=Leads this node's pods to Holdfast
ConditionPathExists=${POD_WAY_FILE}
# A firewall that starts empties the kernel's tables.
After=nftables.service local-fs.target
Before=holdfast.service kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=20
ExecStart=/bin/sh ${POD_WAY_PATH} holdfast
# Pods that have been told the port go on by it.
ExecStop=/bin/sh ${POD_WAY_PATH} direct

[Install]
WantedBy=multi-user.target
`;
}

function bypassUnit(): string {
  return `# Made by "holdfast units".
[Unit]
Description=Looks whether kubelet must go its direct way, past Holdfast
ConditionPathExists=${KUBELET_DROP_IN}
# With a timer this is one look a minute; no limit may end that.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh ${BYPASS_PATH}
TimeoutStartSec=120
UMask=0022
LimitCORE=0
`;
}

function bypassTimer(): string {
  return `# Made by "holdfast units".
[Unit]
Description=Every minute a look whether kubelet must go its direct way, past Holdfast

[Timer]
OnBootSec=60
OnUnitInactiveSec=60
AccuracySec=1

[Install]
WantedBy=timers.target
`;
}
