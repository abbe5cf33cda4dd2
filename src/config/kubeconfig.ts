/**
 * A kubeconfig that is followed: server, CA and credential of its current context.
 *
 * The file itself and every file that it names may be replaced while we run:
 * a CA with its successor beside it, a renewed pair, another token are taken
 * as they come (see `followed.ts`). Where the API server is, and whether we go
 * by certificate or by token, is decided once: another answer is a problem
 * that is told, and a restart.
 */

import { X509Certificate } from "node:crypto";
import { resolve } from "node:path";
import { systemClock, type Clock } from "../base/clock.ts";
import { jsonLog, type Log } from "../base/log.ts";
import type { Credential } from "../kube/credential.ts";
import { Followed, type FollowedState } from "./followed.ts";
import { readKubeconfig, type KubeconfigContent } from "./kubeconfig-content.ts";
import type { CredentialContent } from "./kubeconfig-credential.ts";
import { KubeconfigError } from "./kubeconfig-sheet.ts";

/** What a kubeconfig's current context says. */
export interface Kubeconfig {
  readonly server: string;
  /** The cluster's CAs as the file has them now, PEM. */
  readonly caPem: () => string;
  readonly tlsServerName?: string;
  readonly proxyUrl?: string;
  readonly credential: Credential;
  /** What is odd but no reason to stop: an expired certificate, fields that nobody knows. */
  readonly warnings: readonly string[];
  /** To be looked at regularly: who asks for nothing learns nothing. */
  readonly followed: FollowedState;
}

/** For tests; the machine's clock and the daemon's log by default. */
export interface KubeconfigOptions {
  readonly clock?: Clock;
  /** Is told when new content cannot be used. */
  readonly log?: Log;
}

/**
 * Loads a kubeconfig's current context.
 *
 * @throws {KubeconfigError} naming file, field and remedy.
 */
export function loadKubeconfig(path: string, options: KubeconfigOptions = {}): Kubeconfig {
  const { clock = systemClock, log = jsonLog() } = options;
  const place = resolve(path);
  const followed = new Followed<KubeconfigContent>({
    what: `kubeconfig "${place}"`,
    clock,
    load(read, held) {
      const content = readKubeconfig(place, read);
      if (held !== undefined) checkSame(place, held, content);
      return content;
    },
    onProblem: (reason) => log.warn("new content cannot be used, the former stands", { kubeconfig: place, reason }),
  });
  const first = followed.read();
  const { server, tlsServerName, proxyUrl, credential, warnings } = first;
  return {
    server,
    caPem: () => followed.read().caPem,
    ...(tlsServerName === undefined ? {} : { tlsServerName }),
    ...(proxyUrl === undefined ? {} : { proxyUrl }),
    credential: followedCredential(credential.kind, () => followed.read().credential),
    warnings: [...warnings, ...expiryWarning(place, first, clock.nowMs())],
    followed,
  };
}

/** What a running daemon cannot change. */
function checkSame(path: string, first: KubeconfigContent, now: KubeconfigContent): void {
  const isSame =
    now.server === first.server &&
    now.tlsServerName === first.tlsServerName &&
    now.proxyUrl === first.proxyUrl &&
    now.credential.kind === first.credential.kind;
  if (isSame) return;
  throw new KubeconfigError(
    path,
    "",
    "KUBECONFIG_CHANGED",
    "it names another API server, proxy or kind of credential than at the start; restart holdfast to take it",
  );
}

function followedCredential(kind: CredentialContent["kind"], read: () => CredentialContent): Credential {
  if (kind === "token") return { kind, read: () => (read() as CredentialContent & { kind: "token" }).token };
  return {
    kind,
    read() {
      const { certPem, keyPem } = read() as CredentialContent & { kind: "certificate" };
      return { certPem, keyPem };
    },
  };
}

function expiryWarning(path: string, { credential, userAt }: KubeconfigContent, nowMs: number): string[] {
  if (credential.kind === "token") return [];
  const { validTo } = new X509Certificate(credential.certPem);
  if (Date.parse(validTo) >= nowMs) return [];
  return [
    `kubeconfig "${path}": ${userAt}.client-certificate expired at ${validTo}; what is kept is served, the API server will refuse anything new: renew it`,
  ];
}
