/**
 * The flags of every command: what the parser takes, the help says and the shells complete.
 */

import type { FlagTable } from "./flags.ts";

const OUTPUT_JSON = {
  type: "string",
  short: "o",
  value: "json",
  about: "for programs",
  choices: ["json"],
} as const;
const PLACES = {
  "state-dir": {
    type: "string",
    value: "DIR",
    about: "what is kept",
    otherwise: "/var/lib/holdfast",
    path: "folder",
  },
  "admin-socket": {
    type: "string",
    value: "PATH",
    about: "where the daemon answers, if not in its usual place",
    path: "file",
  },
  config: {
    type: "string",
    value: "FILE",
    about: "configuration, YAML",
    otherwise: "/etc/holdfast/config.yaml",
    path: "file",
  },
} as const;
const KUBECONFIG = { type: "string", value: "FILE", about: "how to reach the API server", path: "file" } as const;

/** `holdfast run` */
export const RUN_FLAGS = {
  kubeconfig: { ...KUBECONFIG, about: "how to reach the API server: server, CA, client certificate or token" },
  listen: {
    type: "string",
    multiple: true,
    value: "ADDRESS:PORT",
    about: "where local clients connect, TLS; may be repeated",
    otherwise: "127.0.0.1:10268",
  },
  "health-listen": {
    type: "string",
    value: "ADDRESS:PORT",
    about: "/livez, /readyz, /metrics, plain HTTP",
    otherwise: "127.0.0.1:10267",
  },
  "state-dir": PLACES["state-dir"],
  "client-ca-file": {
    type: "string",
    value: "FILE",
    about: "CA of local clients' certificates",
    otherwise: "the kubeconfig's CA",
    path: "file",
  },
  config: PLACES.config,
} as const satisfies FlagTable;

/** `holdfast status` */
export const STATUS_FLAGS = {
  output: OUTPUT_JSON,
  watch: { type: "boolean", short: "w", about: "show it anew every two seconds" },
  schema: { type: "boolean", about: "print the JSON Schema of -o json, and nothing else" },
  ...PLACES,
} as const satisfies FlagTable;

/** `holdfast check` */
export const CHECK_FLAGS = { output: OUTPUT_JSON, kubeconfig: KUBECONFIG, ...PLACES } as const satisfies FlagTable;

/** `holdfast netcheck` */
export const NETCHECK_FLAGS = {
  output: OUTPUT_JSON,
  kubeconfig: KUBECONFIG,
  config: PLACES.config,
} as const satisfies FlagTable;

/** `holdfast page` */
export const PAGE_FLAGS = { ...PLACES } as const satisfies FlagTable;

/** `holdfast rehearse` */
export const REHEARSE_FLAGS = {
  for: { type: "string", value: "DURATION", about: "how long, from 1s to 1h: 30s, 10m" },
  force: { type: "boolean", about: "cut although pods would be lost, or the control plane may evict them" },
  output: OUTPUT_JSON,
  ...PLACES,
} as const satisfies FlagTable;

/** `holdfast config` */
export const CONFIG_FLAGS = {
  effective: { type: "boolean", about: "of show: everything that holds, defaults included, and who said it" },
  kubeconfig: KUBECONFIG,
  "state-dir": PLACES["state-dir"],
  config: PLACES.config,
} as const satisfies FlagTable;

/** `holdfast health` */
export const HEALTH_FLAGS = {
  ota: { type: "boolean", about: "well only when the node's own object comes back through Holdfast" },
  wait: { type: "string", value: "DURATION", about: "how long to wait for it", otherwise: "0s" },
  kubeconfig: KUBECONFIG,
  "state-dir": PLACES["state-dir"],
  config: PLACES.config,
} as const satisfies FlagTable;

/** `holdfast bugreport` */
export const BUGREPORT_FLAGS = {
  preview: { type: "boolean", about: "print all that would be in it, and write nothing" },
  "output-file": {
    type: "string",
    value: "FILE",
    about: "where it goes",
    otherwise: "holdfast-bugreport-TIME.tar.gz, here",
    path: "file",
  },
  names: { type: "boolean", about: "keep the names of pods, namespaces, nodes and servers" },
  kubeconfig: KUBECONFIG,
  ...PLACES,
} as const satisfies FlagTable;

/** `holdfast cert` */
export const CERT_FLAGS = { output: OUTPUT_JSON, ...PLACES } as const satisfies FlagTable;

/** `holdfast cache` */
export const CACHE_FLAGS = {
  output: {
    ...OUTPUT_JSON,
    value: "json|raw",
    about: "for programs; raw, of get alone, is the API server's bytes",
    choices: ["json", "raw"],
  },
  "show-secrets": { type: "boolean", about: "print Secrets' data too" },
  ...PLACES,
} as const satisfies FlagTable;

/** `holdfast get` */
export const GET_FLAGS = {
  output: {
    type: "string",
    short: "o",
    value: "wide|yaml|json|name",
    about: "more columns, the objects, or their names alone",
    choices: ["wide", "yaml", "json", "name"],
  },
  namespace: { type: "string", short: "n", value: "NAME", about: "where to look", otherwise: "default" },
  "all-namespaces": { type: "boolean", short: "A", about: "look everywhere" },
  selector: { type: "string", short: "l", value: "SELECTOR", about: "by labels: app=web,!old" },
  "show-secrets": { type: "boolean", about: "print Secrets' data too" },
  ...PLACES,
} as const satisfies FlagTable;

/** `holdfast guard` */
export const GUARD_FLAGS = {
  kubeconfig: {
    ...KUBECONFIG,
    otherwise: "the pod's service account; of explain, where kubectl looks",
  },
  namespace: { type: "string", value: "NAME", about: "where its own objects are", otherwise: "holdfast-system" },
  listen: { type: "string", value: "ADDRESS:PORT", about: "the webhook, TLS", otherwise: "0.0.0.0:10443" },
  "health-listen": {
    type: "string",
    value: "ADDRESS:PORT",
    about: "/livez, /readyz, /metrics",
    otherwise: "0.0.0.0:10444",
  },
  "service-name": {
    type: "string",
    value: "NAME",
    about: "of the Service and the Lease",
    otherwise: "holdfast-guard",
  },
  "tls-cert-file": {
    type: "string",
    value: "FILE",
    about: "serving certificate, with --tls-key-file; else it makes its own",
    path: "file",
  },
  "tls-key-file": { type: "string", value: "FILE", about: "its key", path: "file" },
  "approve-csrs": { type: "boolean", about: "approve kubelets' certificate requests" },
  output: { ...OUTPUT_JSON, about: "of explain, for programs" },
} as const satisfies FlagTable;

/** `holdfast gateway` */
export const GATEWAY_FLAGS = {
  kubeconfig: { ...KUBECONFIG, otherwise: "the pod's service account" },
  namespace: { type: "string", value: "NAME", about: "where its own objects are", otherwise: "holdfast-system" },
  names: {
    type: "string",
    value: "NAMES",
    about: "by comma: the host names and addresses by which nodes dial it; a proof for another name counts for nothing",
  },
  listen: { type: "string", value: "ADDRESS:PORT", about: "for nodes, TLS", otherwise: "0.0.0.0:8443" },
  "listen-plain": {
    type: "string",
    value: "ADDRESS:PORT",
    about: "for nodes behind a balancer that ends TLS; not to be reached by anybody else",
  },
  "tls-cert-file": { type: "string", value: "FILE", about: "serving certificate for --listen", path: "file" },
  "tls-key-file": { type: "string", value: "FILE", about: "its key", path: "file" },
  "client-ca-file": {
    type: "string",
    value: "FILE",
    about: "CA of the nodes' certificates",
    otherwise: "what the API server publishes of itself",
    path: "file",
  },
  mode: {
    type: "string",
    value: "MODE",
    about: "service: a ClusterIP for each node; port: one address, a port for each node",
    otherwise: "service",
    choices: ["service", "port"],
  },
  address: {
    type: "string",
    value: "ADDRESS",
    about: "of mode port: where the API server dials all replicas alike",
    otherwise: "each replica's own",
  },
  "pod-ip": { type: "string", value: "ADDRESS", about: "this replica's own address", otherwise: "POD_IP" },
  "door-address": {
    type: "string",
    value: "ADDRESS",
    about: "on which the nodes' ports are opened",
    otherwise: "the replica's own",
  },
  "handover-port": { type: "string", value: "PORT", about: "from other replicas", otherwise: "8444" },
  ports: { type: "string", value: "FIRST-LAST", about: "given to nodes", otherwise: "20000-29999" },
  nodes: { type: "string", value: "SELECTOR", about: "labels of nodes that may have a tunnel", otherwise: "all" },
  "allow-from": { type: "string", value: "RANGES", about: "by comma: addresses that may dial nodes, ADDRESS/BITS" },
  "health-listen": {
    type: "string",
    value: "ADDRESS:PORT",
    about: "/livez, /readyz, /metrics",
    otherwise: "0.0.0.0:10445",
  },
} as const satisfies FlagTable;

/** `holdfast manifests` */
export const MANIFESTS_FLAGS = {
  gateway: { type: "boolean", about: "the tunnels' gateway instead of the guard" },
  names: { type: "string", value: "NAMES", about: "of the gateway: by comma, how nodes dial it" },
  mode: {
    type: "string",
    value: "MODE",
    about: "of the gateway: service or port",
    otherwise: "service",
    choices: ["service", "port"],
  },
  nodes: { type: "string", value: "SELECTOR", about: "of the gateway: labels of nodes that may have a tunnel" },
  "policies-only": { type: "boolean", about: "nothing but the policies and their parameters: no pod of ours runs" },
  bound: { type: "string", value: "DURATION", about: "how long a silent node is held; 0 for ever", otherwise: "0" },
  controllers: { type: "string", value: "NAMES", about: "more users, by comma, judged like the node controller" },
  namespace: { type: "string", value: "NAME", about: "where the guard lives", otherwise: "holdfast-system" },
  image: { type: "string", value: "IMAGE", about: "the guard's container image" },
  replicas: { type: "string", value: "N", about: "of the guard", otherwise: "2" },
  "approve-csrs": { type: "boolean", about: "the guard approves kubelets' certificate requests" },
  "cert-manager": { type: "boolean", about: "cert-manager makes the serving certificate" },
  format: {
    type: "string",
    value: "FORMAT",
    about: "yaml, kustomize or helm",
    otherwise: "yaml",
    choices: ["yaml", "kustomize", "helm"],
  },
  "output-dir": {
    type: "string",
    value: "DIR",
    about: "of kustomize and helm: empty, or not there yet",
    path: "folder",
  },
} as const satisfies FlagTable;

/** `holdfast adopt` */
export const ADOPT_FLAGS = {
  ignore: {
    type: "string",
    multiple: true,
    value: "ID",
    about: "pass a check: node-ready, bypass, pod-access (pods go on their own way); may be repeated",
    choices: ["node-ready", "bypass", "pod-access"],
  },
} as const satisfies FlagTable;

/** `holdfast join`: kubeadm's own names where kubeadm has the flag. */
export const JOIN_FLAGS = {
  config: {
    type: "string",
    value: "FILE",
    about: "all of this in a file: apiServer, token, caCertHashes ...",
    path: "file",
  },
  token: { type: "string", value: "TOKEN", about: "bootstrap token; in a file nobody sees it among the processes" },
  "discovery-token-ca-cert-hash": {
    type: "string",
    multiple: true,
    value: "sha256:HEX",
    about: "pin of the cluster's CA; may be repeated",
  },
  "node-name": { type: "string", value: "NAME", about: "the node's", otherwise: "this machine's host name" },
  label: { type: "string", multiple: true, value: "KEY=VALUE", about: "of the node; may be repeated" },
  taint: { type: "string", multiple: true, value: "KEY=VALUE:EFFECT", about: "of the node; may be repeated" },
  pool: { type: "string", value: "NAME", about: "neighbours of one pool may witness for each other" },
  ignore: ADOPT_FLAGS.ignore,
} as const satisfies FlagTable;

/** `holdfast units` */
export const UNITS_FLAGS = {
  "output-dir": {
    type: "string",
    value: "DIR",
    about: "write them below this folder, as below the root of a file system",
    path: "folder",
  },
  profile: {
    type: "string",
    value: "small|default",
    about: "for how much memory",
    otherwise: "by this machine's memory",
    choices: ["small", "default"],
  },
  binary: {
    type: "string",
    value: "PATH",
    about: "where the executable will lie",
    otherwise: "/usr/local/bin/holdfast",
    path: "file",
  },
} as const satisfies FlagTable;

/** `holdfast image` */
export const IMAGE_FLAGS = {
  root: {
    type: "string",
    value: "DIR",
    about: "the image's root file system; of seal, without it, this machine",
    path: "folder",
  },
  config: { type: "string", value: "FILE", about: "the configuration that the image gets", path: "file" },
  binary: {
    type: "string",
    value: "FILE",
    about: "the executable for the image's architecture",
    otherwise: "this one",
    path: "file",
  },
  profile: { ...UNITS_FLAGS.profile, about: "for how much memory of the device", otherwise: "small" },
} as const satisfies FlagTable;

/** `holdfast demo` */
export const DEMO_FLAGS = {
  keep: { type: "boolean", about: "leave everything running and print a kubeconfig" },
} as const satisfies FlagTable;

/** `holdfast completion` */
export const COMPLETION_FLAGS = {
  "output-dir": {
    type: "string",
    value: "DIR",
    about: "write all three, and the manual pages, below this folder, as below the root of a file system",
    path: "folder",
  },
} as const satisfies FlagTable;

/** `holdfast version` */
export const VERSION_FLAGS = { output: OUTPUT_JSON } as const satisfies FlagTable;
