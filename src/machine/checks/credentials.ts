/**
 * Whether what this node proves itself with is whole, lasts, and is nobody else's to read.
 */

import { X509Certificate } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { certificatesOf } from "../../certificates/pem.ts";
import type { Config } from "../../config/config.ts";
import { nodeOf } from "../../node/own-node.ts";
import { CONFIG_FILE } from "../places.ts";
import { failed, ok, skipped, warning, type Checked } from "./checked.ts";

const DAY_MS = 86_400_000;
const SOON_MS = 14 * DAY_MS;

/** Looks at the credential of a configuration, and at the files around it. */
export function credentialChecks(config: Config, nowMs: number): Checked[] {
  return [identity(config), ends(config, nowMs), chain(config), modes(config)];
}

function identity({ upstream }: Config): Checked {
  const id = "credentials/identity";
  const node = nodeOf(upstream.credential);
  return node === undefined
    ? warning(
        id,
        "the credential is not a node's: kubelet's writes are not kept while cut",
        "Give the kubeconfig that kubelet uses",
      )
    : ok(id, `node ${node.name}`);
}

function ends({ upstream: { credential } }: Config, nowMs: number): Checked {
  const id = "credentials/certificate";
  if (credential.kind !== "certificate") return skipped(id, "a token, no certificate");
  const { validFrom, validTo } = new X509Certificate(credential.read().certPem);
  const [fromMs, toMs] = [Date.parse(validFrom), Date.parse(validTo)];
  const rest = Math.floor((toMs - nowMs) / DAY_MS);
  if (nowMs < fromMs)
    return failed(id, `it begins only at ${new Date(fromMs).toISOString()}: is the clock right?`, "See: timedatectl");
  if (toMs < nowMs)
    return failed(
      id,
      `it ended at ${new Date(toMs).toISOString()}`,
      "Join the node again: kubeadm token create --print-join-command",
    );
  // One that lives for hours is renewed in its last third.
  return toMs - nowMs < Math.min(SOON_MS, (toMs - fromMs) / 10)
    ? warning(id, `it ends in ${rest} days`, "See: holdfast cert status")
    : ok(id, `${rest} days left`);
}

function chain({ upstream: { credential, caPem } }: Config): Checked {
  const id = "credentials/chain";
  if (credential.kind !== "certificate") return skipped(id, "a token, no certificate");
  const leaf = new X509Certificate(credential.read().certPem);
  return certificatesOf(caPem()).some((ca) => leaf.checkIssued(ca) && leaf.verify(ca.publicKey))
    ? ok(id, "signed by the CA of the kubeconfig")
    : warning(
        id,
        "not signed by the CA of the kubeconfig, which may be right where a cluster has two",
        "Compare: kubectl config view --raw",
      );
}

/** Who can read a key is the node; who can write the configuration leads it elsewhere. */
function modes({ stateDir, adminSocketPath }: Config): Checked {
  const id = "credentials/modes";
  const wrong = [
    ...tooOpen(stateDir, 0o077),
    ...["keys", "keys/seal.key", "pki/node-client.pem", "cache.db"].flatMap((name) =>
      tooOpen(join(stateDir, name), 0o077),
    ),
    ...tooOpen(CONFIG_FILE, 0o022),
    ...(adminSocketPath === undefined ? [] : tooOpen(adminSocketPath, 0o077)),
  ];
  return wrong.length === 0
    ? ok(id, "keys, copies and socket are their owner's alone")
    : failed(id, `others may open ${wrong.join(", ")}`, `chmod go-rwx ${wrong.join(" ")}`);
}

function tooOpen(path: string, mask: number): string[] {
  if (!existsSync(path)) return [];
  return (statSync(path).mode & mask) === 0 ? [] : [path];
}
