/**
 * Finding a cluster by a bootstrap token, as `kubeadm join` does.
 *
 *   unproven connection -> ConfigMap kube-public/cluster-info
 *     -> its signature is made with the token's secret -> its CA is one of the pins
 *     -> the same question over that CA -> the same answer
 *
 * On the unproven connection nothing is sent but the question: no token, no
 * certificate. The signature says that somebody who knows the token wrote it,
 * the pin that it is the cluster that was meant.
 *
 * Source: k8s.io/kubernetes/cmd/kubeadm/app/discovery/token; RFC 7515, appendix F.
 */

import { createHash } from "node:crypto";
import * as v from "valibot";
import { EdgeError } from "../base/errors.ts";
import { certificateBlocks, certificatesOf } from "../certificates/pem.ts";
import { sendBounded } from "./api-ask.ts";
import type { JoinOptions } from "./join-options.ts";

/** No cluster that can be trusted. */
export class ClusterInfoError extends EdgeError {
  override readonly name = "ClusterInfoError";
  readonly code = "CLUSTER_INFO";

  /** @param isFinal what was told of the cluster (token, pin) is not true of it: asked again the answer is the same. */
  constructor(
    message: string,
    readonly isFinal = false,
  ) {
    super(message);
  }
}

/** Where a cluster is, and its CA. */
export interface ClusterInfo {
  /** As the cluster names it: behind a balancer another one than was asked. */
  readonly server: string;
  readonly caPem: string;
}

const TARGET = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const configMapSchema = v.object({ data: v.optional(v.record(v.string(), v.string()), {}) });
const kubeconfigSchema = v.object({
  clusters: v.pipe(
    v.array(v.object({ cluster: v.object({ server: v.string(), "certificate-authority-data": v.string() }) })),
    v.minLength(1),
  ),
});

/** Finds the cluster. @throws {ClusterInfoError} in words that say what to do. */
export async function discover({ server, tokenId, tokenSecret, pins }: JoinOptions): Promise<ClusterInfo> {
  const unproven = await clusterInfo(server);
  const kubeconfig = unproven["kubeconfig"];
  const signature = unproven[`jws-kubeconfig-${tokenId}`];
  if (kubeconfig === undefined)
    throw new ClusterInfoError(
      `Cannot join by ${server}: its ConfigMap kube-public/cluster-info holds no kubeconfig; on the control plane: kubeadm init phase bootstrap-token`,
    );
  if (signature === undefined)
    throw new ClusterInfoError(
      `Cannot join by ${server}: the token "${tokenId}" is unknown there or has ended; on the control plane: kubeadm token create --print-join-command`,
      true,
    );
  if (!(await isSigned(kubeconfig, signature, tokenId, tokenSecret)))
    throw new ClusterInfoError(
      `Cannot join by ${server}: what it says of the cluster is not signed with this token; compare the token, and who answers there`,
      true,
    );
  const info = clusterOf(kubeconfig, server);
  const present = certificatesOf(info.caPem).map(({ publicKey }) =>
    createHash("sha256")
      .update(publicKey.export({ type: "spki", format: "der" }))
      .digest("hex"),
  );
  if (!present.some((pin) => pins.includes(pin)))
    throw new ClusterInfoError(
      `Cannot join by ${server}: the cluster's CA there is sha256:${present[0]}, which is none of the ${pins.length} pinned; another cluster answers, or the pin is an old one`,
      true,
    );
  const proven = await clusterInfo(server, info.caPem);
  if (proven["kubeconfig"] !== kubeconfig)
    throw new ClusterInfoError(`Cannot join by ${server}: asked again over the pinned CA, it says something else`);
  return info;
}

/** @param ca without one whoever answers is proven by what it says alone, and is sent nothing but the question. */
async function clusterInfo(server: string, ca?: string): Promise<Readonly<Record<string, string>>> {
  const { status, body } = await sendBounded(`${server}${TARGET}`, {
    tls: ca === undefined ? { rejectUnauthorized: false } : { ca },
    headers: { Accept: "application/json" },
  });
  if (status !== 200)
    throw new ClusterInfoError(
      `Cannot join by ${server}: it answers ${status} for ConfigMap kube-public/cluster-info; see that this is the API server, and that kubeadm made the cluster`,
    );
  try {
    return v.parse(configMapSchema, JSON.parse(body)).data;
  } catch {
    throw new ClusterInfoError(`Cannot join by ${server}: what answers there is no API server`);
  }
}

async function isSigned(kubeconfig: string, detached: string, kid: string, secret: string): Promise<boolean> {
  const { compactVerify } = await import("jose");
  const [header = "", payload, signature = ""] = detached.split(".");
  if (payload !== "") return false;
  const whole = `${header}.${Buffer.from(kubeconfig).toString("base64url")}.${signature}`;
  try {
    const { protectedHeader } = await compactVerify(whole, Buffer.from(secret), { algorithms: ["HS256"] });
    return protectedHeader.kid === kid;
  } catch {
    return false;
  }
}

function clusterOf(kubeconfig: string, asked: string): ClusterInfo {
  try {
    const [{ cluster }] = v.parse(kubeconfigSchema, Bun.YAML.parse(kubeconfig)).clusters as [
      v.InferOutput<typeof kubeconfigSchema>["clusters"][number],
    ];
    const { protocol, origin } = new URL(cluster.server);
    const caPem = Buffer.from(cluster["certificate-authority-data"], "base64").toString("utf8");
    const blocks = certificateBlocks(caPem);
    if (protocol !== "https:" || blocks.length === 0 || certificatesOf(caPem).length === 0)
      throw new Error("incomplete");
    return { server: origin, caPem: blocks.map((block) => `${block}\n`).join("") };
  } catch {
    throw new ClusterInfoError(`Cannot join by ${asked}: its cluster-info names no https server with a CA`);
  }
}
