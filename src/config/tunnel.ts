/**
 * The tunnel, as the configuration has it: off where nothing is said.
 *
 *   tunnel: {gateways: ["wss://gateway.example"], caFile: /etc/holdfast/gateway-ca.crt}
 *   tunnel: off
 *
 * `off` is the node's own word and wins over everything, the environment
 * included: whoever stands at the machine decides what comes into it.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { clientSubjectOf, isNode } from "../certificates/client-request.ts";
import { followCaFile } from "./client-ca.ts";
import { ConfigError } from "./config-error.ts";
import type { Env } from "./config-file.ts";
import type { FollowedState } from "./followed.ts";
import type { Kubeconfig } from "./kubeconfig.ts";
import type { FileConfig } from "./schema.ts";

/** What the agent needs. */
export interface TunnelConfig {
  /** https://HOST:PORT each, as they are dialled. */
  readonly gateways: readonly string[];
  /** Whom a gateway's certificate must come from, as its file has it now, PEM. */
  readonly caPem: () => string;
}

const MAX_GATEWAYS = 16;

/** What `tunnelOf` is given. */
export interface TunnelGround {
  readonly file: FileConfig;
  readonly env: Env;
  /** The node's certificate; and the cluster's CA, trusted where no file is named. */
  readonly kubeconfig: Pick<Kubeconfig, "credential" | "caPem">;
  readonly clock: Clock;
  readonly log: Log;
}

/** @throws {ConfigError} */
export function tunnelOf({ file, env, kubeconfig: { credential, caPem }, clock, log }: TunnelGround): {
  readonly tunnel?: TunnelConfig;
  readonly followed: readonly FollowedState[];
} {
  const { tunnel } = file;
  const fromEnv = env["HOLDFAST_TUNNEL_GATEWAYS"]?.split(",").map((one) => one.trim());
  if (tunnel === "off" || env["HOLDFAST_TUNNEL"] === "off") return { followed: [] };
  const given = fromEnv ?? tunnel?.gateways ?? [];
  if (given.length === 0) return { followed: [] };
  if (given.length > MAX_GATEWAYS)
    throw new ConfigError(`Cannot use tunnel.gateways: ${MAX_GATEWAYS} at most, not ${given.length}`);
  if (credential.kind !== "certificate" || !isNode(clientSubjectOf(credential.read().certPem)))
    throw new ConfigError(
      'Cannot use tunnel: the kubeconfig holds no client certificate of a node ("system:node:NAME" in "system:nodes"), by which a gateway knows it; give one, or say tunnel: off',
    );
  const ca = tunnel?.caFile === undefined ? undefined : followCaFile("tunnel.caFile", tunnel.caFile, { clock, log });
  return {
    tunnel: { gateways: [...new Set(given.map(gatewayUrl))], caPem: ca === undefined ? caPem : () => ca.read() },
    followed: ca === undefined ? [] : [ca],
  };
}

/** wss://HOST[:PORT], or HOST[:PORT]; a path would say that a gateway shares its name with something else. */
function gatewayUrl(given: string): string {
  const url = URL.parse(given.includes("://") ? given.replace(/^wss:/, "https:") : `https://${given}`);
  const isFit = url?.protocol === "https:" && url.hostname !== "" && url.pathname === "/" && url.search === "";
  if (url === null || !isFit || url.username !== "")
    throw new ConfigError(
      `Cannot use tunnel.gateways: expected wss://HOST or wss://HOST:PORT, got "${given.replace(/\/\/.*@/, "//...@")}"`,
    );
  return `https://${url.hostname}:${url.port === "" ? 443 : url.port}`;
}
