/**
 * The table of commands. To add one: a file beside this one that exports
 * `command`, its flags in `flag-table.ts`, a row here.
 */

import {
  ADOPT_FLAGS,
  BUGREPORT_FLAGS,
  CACHE_FLAGS,
  CERT_FLAGS,
  CHECK_FLAGS,
  COMPLETION_FLAGS,
  CONFIG_FLAGS,
  DEMO_FLAGS,
  GATEWAY_FLAGS,
  GET_FLAGS,
  GUARD_FLAGS,
  HEALTH_FLAGS,
  IMAGE_FLAGS,
  JOIN_FLAGS,
  MANIFESTS_FLAGS,
  NETCHECK_FLAGS,
  PAGE_FLAGS,
  REHEARSE_FLAGS,
  RUN_FLAGS,
  STATUS_FLAGS,
  UNITS_FLAGS,
  VERSION_FLAGS,
} from "./flag-table.ts";
import type { FlagTable } from "./flags.ts";

/** A command's module. */
export interface CommandModule {
  /**
   * @param commands the table, for those that speak of it.
   * @returns the exit code: 0 ok, 1 failure, 2 usage, 3 degraded or offline.
   */
  command(args: readonly string[], commands: readonly CommandRow[]): Promise<number>;
}

/** A row of the table. */
export interface CommandRow {
  readonly name: string;
  readonly summary: string;
  /** Lines of how it is called. */
  readonly synopsis: string;
  readonly flags: FlagTable;
  /** A last word of its help. */
  readonly note?: string;
  /** Words that may follow it. */
  readonly words?: readonly string[];
  readonly load: () => Promise<CommandModule>;
}

/** All commands. */
export const COMMANDS: readonly CommandRow[] = [
  {
    name: "run",
    summary: "Run the proxy of this node",
    synopsis: "holdfast run --kubeconfig FILE [options]",
    flags: RUN_FLAGS,
    load: () => import("./run.ts"),
  },
  {
    name: "status",
    summary: "Say whether the link is up and what is kept",
    synopsis: "holdfast status [--watch] [-o json] [options]\nholdfast status --schema",
    flags: STATUS_FLAGS,
    note: "exit code 0 online, 3 offline or degraded, 1 not running",
    load: () => import("./status.ts"),
  },
  {
    name: "check",
    summary: "Say whether this node would survive a cut, and what to do where not",
    synopsis: "holdfast check [host|network|credentials|kubelet|cache|tunnel|sandbox] [-o json] [options]",
    flags: CHECK_FLAGS,
    words: ["host", "network", "credentials", "kubelet", "cache", "tunnel", "sandbox"],
    note: "exit code 0 well, 1 something failed, 3 something is to be looked at; changes nothing",
    load: () => import("./check.ts"),
  },
  {
    name: "netcheck",
    summary: "Look at the way to the API servers, layer by layer",
    synopsis: "holdfast netcheck [-o json] [--kubeconfig FILE] [--config FILE]",
    flags: NETCHECK_FLAGS,
    note: "proxy, dns, tcp, tls, http, api: the first one that fails is what is broken",
    load: () => import("./netcheck.ts"),
  },
  {
    name: "rehearse",
    summary: "Cut the link inside Holdfast alone for a while, and say what was not answered",
    synopsis: "holdfast rehearse --for DURATION [--force] [-o json] [options]",
    flags: REHEARSE_FLAGS,
    note: "ends with this command, however it ends; exit code 0 all was answered, 3 not all, 1 refused",
    load: () => import("./rehearse.ts"),
  },
  {
    name: "get",
    summary: "Show what this node knows of pods, nodes and the rest, link or no link",
    synopsis: `holdfast get TYPE[.GROUP] [NAME] [-n NAMESPACE | -A] [-l SELECTOR] [-o wide|yaml|json|name] [options]
holdfast get TYPE/NAME ...`,
    flags: GET_FLAGS,
    words: ["pods", "nodes", "services", "configmaps", "deployments", "endpointslices"],
    note: "reads the copies on this node's disk through the running daemon; root alone may",
    load: () => import("./get.ts"),
  },
  {
    name: "cache",
    summary: "Look into what is kept, or check it",
    synopsis: `holdfast cache ls [-o json] [options]
holdfast cache get RESOURCE[.GROUP] [NAMESPACE/]NAME [-o json|raw] [--show-secrets] [options]
holdfast cache verify [options]`,
    flags: CACHE_FLAGS,
    words: ["ls", "get", "verify"],
    load: () => import("./cache.ts"),
  },
  {
    name: "cert",
    summary: "Show, renew or revoke this node's certificates",
    synopsis: `holdfast cert status [-o json] [options]
holdfast cert rotate node-client|serving|local-ca [options]
holdfast cert revoke local-ca [options]`,
    flags: CERT_FLAGS,
    words: ["status", "rotate", "revoke"],
    note: "exit code 0 done, 3 under way, 1 not done; node-client is renewed where certificates.rotateNodeClient says so",
    load: () => import("./cert.ts"),
  },
  {
    name: "config",
    summary: "Say whether a configuration can be used, and what it amounts to",
    synopsis: `holdfast config validate [FILE] [options]
holdfast config show [FILE] [--effective] [options]
holdfast config migrate [FILE]`,
    flags: CONFIG_FLAGS,
    words: ["validate", "show", "migrate"],
    note: "changes nothing; what --effective prints is a configuration again",
    load: () => import("./config.ts"),
  },
  {
    name: "page",
    summary: "Make a new PIN for the technician's page",
    synopsis: "holdfast page pin [options]",
    flags: PAGE_FLAGS,
    words: ["pin"],
    note: "the page is off unless the configuration has page: {listen: ADDRESS:PORT}",
    load: () => import("./page.ts"),
  },
  {
    name: "health",
    summary: "Ask the running daemon whether it is fit, for scripts and updaters",
    synopsis: "holdfast health [--ota] [--wait DURATION] [options]",
    flags: HEALTH_FLAGS,
    note: "exit code 0 well, 1 not",
    load: () => import("./health.ts"),
  },
  {
    name: "bugreport",
    summary: "Pack what helps to understand a fault, and nothing that is secret",
    synopsis: "holdfast bugreport [--preview] [--output-file FILE] [options]",
    flags: BUGREPORT_FLAGS,
    note: "at most 2 MB; names are replaced unless --names is given",
    load: () => import("./bugreport.ts"),
  },
  {
    name: "guard",
    summary: "Keep the control plane from evicting what is only cut off",
    synopsis: `holdfast guard [--kubeconfig FILE] [options]
holdfast guard explain NODE|NAMESPACE/POD [-o json] [--kubeconfig FILE] [--namespace NAME]`,
    flags: GUARD_FLAGS,
    words: ["explain"],
    load: () => import("./guard.ts"),
  },
  {
    name: "gateway",
    summary: "Take in nodes that dial out, and give the API server a way to them",
    synopsis: "holdfast gateway --names NAMES [--mode service|port] [options]",
    flags: GATEWAY_FLAGS,
    load: () => import("./gateway.ts"),
  },
  {
    name: "manifests",
    summary: "Print the guard's or the gateway's Kubernetes objects",
    synopsis: `holdfast manifests [--policies-only] [options] | kubectl apply -f -
holdfast manifests --gateway --names NAMES [options] | kubectl apply -f -
holdfast manifests --format kustomize|helm --output-dir DIR [options]`,
    flags: MANIFESTS_FLAGS,
    note: "a chart takes these from its values; Kubernetes 1.30 or newer",
    load: () => import("./manifests.ts"),
  },
  {
    name: "join",
    summary: "Make this bare machine a node of a cluster that kubeadm made, behind Holdfast",
    synopsis: `holdfast join API_SERVER:PORT --token TOKEN --discovery-token-ca-cert-hash sha256:HEX [options]
holdfast join --config FILE`,
    flags: JOIN_FLAGS,
    note: "the control plane prints the arguments: kubeadm token create --print-join-command. A machine that kubeadm joined is adopted. exit code 5: a check stood in the way",
    load: () => import("./join.ts"),
  },
  {
    name: "adopt",
    summary: "Put this node, which kubeadm joined, behind Holdfast",
    synopsis: "holdfast adopt [--ignore ID]",
    flags: ADOPT_FLAGS,
    note: "no container is restarted; what goes wrong takes itself back. exit code 5: a check stood in the way",
    load: () => import("./adopt.ts"),
  },
  {
    name: "revert",
    summary: "Take this node back from behind Holdfast",
    synopsis: "holdfast revert",
    flags: {},
    note: "needs no link; without this executable: sh /usr/local/lib/holdfast/bypass.sh --revert",
    load: () => import("./revert.ts"),
  },
  {
    name: "units",
    summary: "Print the systemd units of a node",
    synopsis: "holdfast units [--output-dir DIR] [--profile small|default] [--binary PATH]",
    flags: UNITS_FLAGS,
    note: "the installer writes the same; changes belong into drop-ins: systemctl edit holdfast",
    load: () => import("./units.ts"),
  },
  {
    name: "image",
    summary: "Build device images: forget a machine's identity, put Holdfast into a root file system",
    synopsis: `holdfast image seal [--root DIR]
holdfast image provision --root DIR --config FILE [--binary FILE] [--profile small|default]`,
    flags: IMAGE_FLAGS,
    words: ["seal", "provision"],
    note: "needs no network and runs nothing of the image; first-boot is what the device's own unit calls",
    load: () => import("./image.ts"),
  },
  {
    name: "demo",
    summary: "Show all this without a cluster",
    synopsis: "holdfast demo [--keep]",
    flags: DEMO_FLAGS,
    load: () => import("./demo.ts"),
  },
  {
    name: "version",
    summary: "Print the version",
    synopsis: "holdfast version [-o json]",
    flags: VERSION_FLAGS,
    load: () => import("./version.ts"),
  },
  {
    name: "completion",
    summary: "Print shell completion",
    synopsis: "holdfast completion bash|zsh|fish | --output-dir DIR",
    flags: COMPLETION_FLAGS,
    words: ["bash", "zsh", "fish"],
    note: `bash: holdfast completion bash > /etc/bash_completion.d/holdfast
  zsh:  holdfast completion zsh > "\${fpath[1]}/_holdfast"
  fish: holdfast completion fish > ~/.config/fish/completions/holdfast.fish
install.sh has placed all three, and the manual pages, below /usr/local/share.`,
    load: () => import("./completion.ts"),
  },
];
