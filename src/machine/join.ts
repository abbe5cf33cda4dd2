/**
 * A bare machine joins a cluster that kubeadm made, behind Holdfast from
 * kubelet's first start.
 *
 *   discovery -> certificate -> kubeadm's files -> adopted as a node that nobody has seen yet
 *
 * A machine that is a node already is adopted. Each step may be taken twice:
 * killed anywhere, the next run goes on. With kubelet.conf on disk the machine
 * is a node; what goes wrong after that leaves one on its own way.
 */

import { existsSync, rmSync } from "node:fs";
import { EdgeError } from "../base/errors.ts";
import { adopt, type AdoptOptions } from "./adopt.ts";
import { askApi, type ApiWay } from "./api-ask.ts";
import { discover, type ClusterInfo } from "./cluster-info.ts";
import type { JoinOptions } from "./join-options.ts";
import { KUBELET_CONF, writeKubeadmFiles } from "./kubeadm-files.ts";
import type { KubeletUnit } from "./kubelet-files.ts";
import { placeOf, type Machine } from "./machine.ts";
import { joinKeyPath, requestNodeCertificate } from "./node-certificate.ts";
import { isKnownByWay, isReady, type ReadyNode } from "./node-way.ts";

/** The machine has not joined, or not behind Holdfast. */
export class JoinError extends EdgeError {
  override readonly name = "JoinError";
  readonly code = "JOIN";
}

/** What joining works on. */
export interface JoinParts extends AdoptOptions {
  readonly machine: Machine;
  readonly hostName: string;
  /** From the preflight. */
  readonly unit: KubeletUnit;
}

const KUBELET_CONFIG = "/api/v1/namespaces/kube-system/configmaps/kubelet-config";

/** Whether this machine is a node already: then it is only adopted. */
export function isJoined(machine: Machine): boolean {
  return existsSync(placeOf(machine, KUBELET_CONF));
}

/**
 * Joins. Needs root and what the installer brings.
 *
 * @returns the node's name.
 * @throws {EdgeError} in words that end with what to do; the next run goes on.
 */
export async function join(options: JoinOptions, parts: JoinParts): Promise<string> {
  const { machine, unit } = parts;
  if (!isJoined(machine)) await becomeNode(options, parts);
  try {
    const isNew = !(await isKnownByWay(placeOf(machine, KUBELET_CONF)));
    await adopt(machine, { ...parts, isNew }, unit);
  } catch (error) {
    await machine.systemctl("restart", "kubelet");
    throw new JoinError(
      `Node ${options.nodeName} has joined, and goes its own way, not through Holdfast: ${(error as Error).message}; next: holdfast adopt`,
      { cause: error },
    );
  }
  return options.nodeName;
}

async function becomeNode(options: JoinOptions, { machine, stateDir, hostName }: JoinParts): Promise<void> {
  const { nodeName } = options;
  machine.onStep("discover");
  const cluster = await discover(options);
  const way = wayBy(cluster, options);
  await refuseTaken(way, nodeName);
  machine.onStep("certificate");
  const pair = await requestNodeCertificate(machine, way, { nodeName, stateDir });
  machine.onStep("node files");
  const kubeletConfig = await kubeletConfigOf(way);
  // Until its new way is laid it would come up on the direct one.
  await machine.systemctl("stop", "kubelet");
  await writeKubeadmFiles(machine, { options, cluster, kubeletConfig, pair, hostName });
  machine.onStep("joined");
  rmSync(joinKeyPath(stateDir), { force: true });
  await machine.systemctl("enable", "kubelet");
}

function wayBy({ server, caPem }: ClusterInfo, { tokenId, tokenSecret }: JoinOptions): ApiWay {
  return { server, ca: caPem, token: `${tokenId}.${tokenSecret}` };
}

/** Two machines of one name would fight over one Node. */
async function refuseTaken(way: ApiWay, name: string): Promise<void> {
  const { status, body } = await askApi(way, "GET", `/api/v1/nodes/${name}`);
  if (status === 401)
    throw new JoinError(
      `Cannot join by ${way.server}: the token is refused; on the control plane: kubeadm token create --print-join-command`,
    );
  if (status === 200 && isReady(JSON.parse(body) as ReadyNode))
    throw new JoinError(
      `Cannot join as "${name}": a node of that name is there and Ready; choose another by nodeName, or kubectl delete node ${name}`,
    );
}

async function kubeletConfigOf(way: ApiWay): Promise<string> {
  const { status, body } = await askApi(way, "GET", KUBELET_CONFIG);
  if (status !== 200)
    throw new JoinError(
      `Cannot join: ConfigMap kube-system/kubelet-config is answered ${status}; on the control plane: kubeadm init phase upload-config kubelet`,
    );
  const { data } = JSON.parse(body) as { data?: { kubelet?: string } };
  return data?.kubelet ?? "";
}
