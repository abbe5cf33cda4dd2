/**
 * Where things of ours lie on a node: a contract with bypass.sh, the installer and people.
 */

/** Where unit files of this machine's administrator lie. */
export const UNIT_DIR = "/etc/systemd/system";
/** Where the installer puts the executable. */
export const DEFAULT_BINARY = "/usr/local/bin/holdfast";
/** Where the configuration lies; without it the unit is skipped. */
export const CONFIG_FILE = "/etc/holdfast/config.yaml";
/** Puts kubelet on Holdfast's way. Sorts behind kubeadm's own, whose variable it overrides. */
export const KUBELET_DROP_IN = `${UNIT_DIR}/kubelet.service.d/zz-holdfast.conf`;
/** Lets kubelet serve by the certificate that Holdfast keeps for it. bypass.sh writes it; sorts behind ours and before the bypass's. */
export const KUBELET_SERVING_DROP_IN = `${UNIT_DIR}/kubelet.service.d/zz-holdfast.serving.conf`;
/** The same variable as it was before: what the bypass puts behind that. */
export const DIRECT_DROP_IN = "/etc/holdfast/kubelet-direct.conf";
/** Plain sh, for when our executable cannot start. */
export const BYPASS_PATH = "/usr/local/lib/holdfast/bypass.sh";
/** Kubelet's kubeconfig on our way. */
export const KUBELET_KUBECONFIG = "/etc/holdfast/kubelet.kubeconfig";
/** How kubelet starts once its certificate has ended: written by the daemon, read by kubelet's drop-in. */
export const KUBELET_ENDED_FILE = "/run/holdfast/kubelet-ended.env";
/** The bypass's drop-in, while there is one. */
export const BYPASS_DROP_IN = "/run/systemd/system/kubelet.service.d/zzz-holdfast-bypass.conf";
/** The credential that seals what is kept, by systemd's name for it. */
export const SEAL_KEY_NAME = "holdfast-seal-key";
/** What the installer and \`image provision\` brought, a line each. */
export const INSTALLED_LIST = "/usr/local/lib/holdfast/installed";
/** Where pods come through us, for pod-way.sh. */
export const POD_WAY_FILE = "/etc/holdfast/pod-way.env";
/** Plain sh too: it must lead past us when our executable cannot start. */
export const POD_WAY_PATH = "/usr/local/lib/holdfast/pod-way.sh";
