/**
 * The command lines of the cloud's programs.
 */
import { join } from "node:path";
import type { Pki } from "./pki.ts";

/** Where etcd listens, within the cloud. */
export const ETCD_URL = "http://127.0.0.1:2379";

const PEER_URL = "http://127.0.0.1:2380";

/** One etcd, which need not survive the machine. */
export function etcdArguments(dataDirectory: string): string[] {
  return [
    ...flags({
      "data-dir": dataDirectory,
      "listen-client-urls": ETCD_URL,
      "advertise-client-urls": ETCD_URL,
      "listen-peer-urls": PEER_URL,
      "initial-advertise-peer-urls": PEER_URL,
      "initial-cluster": `default=${PEER_URL}`,
    }),
    "--unsafe-no-fsync",
  ];
}

/** An API server as kubeadm would start it, on the cloud's address. */
export function apiServerArguments(pki: Pki, address: string): string[] {
  return flags({
    "etcd-servers": ETCD_URL,
    "secure-port": "6443",
    // A loopback address is refused here.
    "advertise-address": address,
    "client-ca-file": pki.ca,
    "tls-cert-file": pki.certificate("apiserver"),
    "tls-private-key-file": pki.key("apiserver"),
    "kubelet-client-certificate": pki.certificate("apiserver-kubelet"),
    "kubelet-client-key": pki.key("apiserver-kubelet"),
    "kubelet-certificate-authority": pki.ca,
    // As kubeadm sets it: nobody resolves a node's name here.
    "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
    // Aggregated APIs believe whom it names, by this certificate.
    "requestheader-client-ca-file": pki.ca,
    "requestheader-allowed-names": "front-proxy-client",
    "requestheader-username-headers": "X-Remote-User",
    "requestheader-group-headers": "X-Remote-Group",
    "requestheader-extra-headers-prefix": "X-Remote-Extra-",
    "proxy-client-cert-file": pki.certificate("front-proxy-client"),
    "proxy-client-key-file": pki.key("front-proxy-client"),
    "service-account-key-file": join(pki.directory, "service-account.pub"),
    "service-account-signing-key-file": pki.key("service-account"),
    "service-account-issuer": "https://kubernetes.default.svc",
    "service-cluster-ip-range": "10.96.0.0/16",
    "authorization-mode": "Node,RBAC",
    "enable-admission-plugins": "NodeRestriction",
    "allow-privileged": "true",
    // The lab compacts when it wants to.
    "etcd-compaction-interval": "0",
  });
}

/** Every controller; a service account for each. */
export function controllerManagerArguments(pki: Pki, kubeconfig: string): string[] {
  return flags({
    kubeconfig,
    "authentication-kubeconfig": kubeconfig,
    "authorization-kubeconfig": kubeconfig,
    "cluster-signing-cert-file": pki.ca,
    "cluster-signing-key-file": pki.key("ca"),
    "root-ca-file": pki.ca,
    "service-account-private-key-file": pki.key("service-account"),
    "use-service-account-credentials": "true",
    "leader-elect": "false",
  });
}

/** The stock scheduler. */
export function schedulerArguments(kubeconfig: string): string[] {
  return flags({
    kubeconfig,
    "authentication-kubeconfig": kubeconfig,
    "authorization-kubeconfig": kubeconfig,
    "leader-elect": "false",
  });
}

function flags(values: Readonly<Record<string, string>>): string[] {
  return Object.entries(values).map(([name, value]) => `--${name}=${value}`);
}
