/**
 * How long this node survives without its link, and what ends first.
 *
 * What counts is what cannot be renewed while cut and without which the node
 * is lost: its own credential towards the API server, and the certificates
 * that its kubelet shows to us. What renews itself here, and what is served
 * although it has ended, is told and does not count.
 */

import { payloadOf } from "../callers/token-claims.ts";
import type { LocalCertificates } from "../certificates/local.ts";
import { validityOf } from "../certificates/renewals.ts";
import type { StatusReport } from "../health/status-report.ts";
import { subjectOf } from "../node/own-node.ts";
import type { Ground } from "./ground.ts";

type Horizon = NonNullable<StatusReport["horizon"]>;

/** What ends beside our own credential. */
export interface Ends {
  readonly local: LocalCertificates | undefined;
  /** The certificates of clients, by CN. */
  readonly seen: ReadonlyMap<string, number>;
  /** Of the kept tokens of this node's pods. */
  readonly tokenEnds: readonly number[];
}

/** More clients than these are not told of, one by one. */
const MAX_CLIENTS = 8;

/** The horizon of this moment. */
export function horizonOf({ config }: Pick<Ground, "config">, { local, seen, tokenEnds }: Ends): Horizon {
  const { credential } = config.upstream;
  const vital: { what: string; endsMs: number; effect: string }[] = [];
  const others: typeof vital = [];
  let ownName: string | undefined;
  if (credential.kind === "certificate") {
    const { certPem } = credential.read();
    ownName = subjectOf(certPem).name;
    const effect = "what is kept is served on; at the return the node must be joined again";
    vital.push({ what: "the node certificate", endsMs: validityOf(certPem).notAfterMs, effect });
  } else {
    const endsMs = endOfToken(credential.read());
    const effect = "what is kept is served on; at the return another token is needed";
    if (endsMs !== undefined) vital.push({ what: "our own token", endsMs, effect });
  }
  for (const [name, endsMs] of [...seen].slice(0, MAX_CLIENTS)) {
    if (endsMs === vital[0]?.endsMs && name === ownName) continue;
    const end = {
      what: `the certificate that client "${name}" shows`,
      endsMs,
      effect: "it is refused, while ours is still good",
    };
    if (name === ownName) vital.push(end);
    else others.push(end);
  }
  if (tokenEnds.length > 0)
    others.push({
      what: `the first of ${tokenEnds.length} kept tokens of pods`,
      endsMs: Math.min(...tokenEnds),
      effect: "they are served expired",
    });
  if (local !== undefined) {
    others.push({
      what: "the serving certificate",
      endsMs: validityOf(local.serving.certPem).notAfterMs,
      effect: "renewed here before",
    });
    others.push({
      what: "the local CA",
      endsMs: validityOf(local.authority.certPem).notAfterMs,
      effect: "renewed here before",
    });
  }
  const [first] = vital.toSorted((a, b) => a.endsMs - b.endsMs);
  return {
    ...(first === undefined ? {} : { endsMs: first.endsMs }),
    because: first?.what ?? "",
    ends: [...vital, ...others],
  };
}

function endOfToken(token: string): number | undefined {
  const { exp } = (payloadOf(token) ?? {}) as { exp?: unknown };
  return typeof exp === "number" ? exp * 1_000 : undefined;
}
