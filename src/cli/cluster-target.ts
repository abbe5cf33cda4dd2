/**
 * Which cluster a command talks to, and as whom.
 *
 * A part of the cluster goes by the kubeconfig it is given, or else by its own
 * service account. A person's command looks where kubectl looks: --kubeconfig,
 * the first file of KUBECONFIG that is there, ~/.kube/config, and at last the
 * service account. Files of KUBECONFIG are not merged.
 */

import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import type { KubernetesTarget } from "../cluster/kubernetes.ts";
import { loadKubeconfig } from "../config/kubeconfig.ts";
import { UsageError } from "./flags.ts";

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

type Env = Readonly<Record<string, string | undefined>>;

/** The kubeconfig named, or the service account of the pod that this runs in. */
export function targetOfPart(kubeconfig: string | undefined, env: Env): KubernetesTarget {
  const target = kubeconfig === undefined ? targetOfPod(env) : targetOfFile(kubeconfig);
  if (target === undefined) throw new UsageError("Not in a pod: name a kubeconfig with --kubeconfig FILE");
  return target;
}

/** Where kubectl would look. */
export function targetOfPerson(kubeconfig: string | undefined, env: Env): KubernetesTarget {
  const file = kubeconfig ?? kubeconfigOf(env);
  const target = file === undefined ? targetOfPod(env) : targetOfFile(file);
  if (target === undefined)
    throw new UsageError("No cluster: name a kubeconfig with --kubeconfig FILE or KUBECONFIG=FILE");
  return target;
}

function kubeconfigOf({ KUBECONFIG: list = "", HOME: home = "" }: Env): string | undefined {
  const named = list.split(":").filter((path) => path !== "");
  // One that is named and not there is an error with its path.
  if (named.length > 0) return named.find((path) => existsSync(path)) ?? named[0];
  const usual = join(home, ".kube", "config");
  return home !== "" && existsSync(usual) ? usual : undefined;
}

function targetOfFile(path: string): KubernetesTarget {
  const { server, caPem, tlsServerName, proxyUrl, credential } = loadKubeconfig(path);
  return { server, caPem, tlsServerName, proxyUrl, credential };
}

function targetOfPod(env: Env): KubernetesTarget | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = "443" } = env;
  if (host === undefined || !existsSync(`${SERVICE_ACCOUNT}/token`)) return undefined;
  return {
    server: `https://${isIP(host) === 6 ? `[${host}]` : host}:${port}`,
    // Both are exchanged while we run.
    caPem: () => readFileSync(`${SERVICE_ACCOUNT}/ca.crt`, "utf8"),
    credential: { kind: "token", read: () => readFileSync(`${SERVICE_ACCOUNT}/token`, "utf8").trim() },
  };
}
