/**
 * Whether the API server reaches this node's kubelet, where a tunnel or a place
 * of one's own is to lead it there: each gateway, the tunnel, the place, and the
 * certificate by which kubelet is believed at it.
 *
 * Nothing of ours is shown to a gateway before its certificate has been believed,
 * and then nothing either: the running daemon has shown it already.
 */

import { existsSync } from "node:fs";
import { kubeletServingPath } from "../../certificates/kubelet-serving.ts";
import type { Config } from "../../config/config.ts";
import type { StatusReport } from "../../health/status-report.ts";
import { dial } from "../../uplink/dial.ts";
import { reasonOf } from "../../uplink/upstream.ts";
import { placeOf, type Machine } from "../machine.ts";
import { KUBELET_SERVING_DROP_IN } from "../places.ts";
import { failed, ok, skipped, warning, type Checked } from "./checked.ts";

/** Where it is looked. */
export interface TunnelGround {
  readonly config: Pick<Config, "tunnel" | "place" | "servesKubelet" | "stateDir" | "upstream">;
  readonly machine: Pick<Machine, "root">;
  /** Of the running daemon; undefined while none answers. */
  readonly report: Pick<StatusReport, "tunnel" | "nowMs"> | undefined;
}

const PATIENCE_MS = 5_000;
const LOOK_AT_GATEWAY = "Look after it: kubectl -n holdfast-system logs deploy/holdfast-gateway";

/** Looks at the way from the API server to this node. */
export async function tunnelChecks(ground: TunnelGround): Promise<Checked[]> {
  const { tunnel, place, upstream } = ground.config;
  if (tunnel === undefined)
    return [
      place === undefined
        ? skipped("tunnel/link", "none is configured: the API server dials kubelet's own address")
        : ok("tunnel/place", `the API server dials ${place.addresses[0]!.address}, port ${place.port}`),
      ...serving(ground),
    ];
  const gateways = await Promise.all(
    tunnel.gateways.map((gateway) => byCertificate(gateway, tunnel.caPem(), upstream.proxyFor(gateway))),
  );
  return [...gateways, ...link(ground.report), ...serving(ground)];
}

async function byCertificate(server: string, ca: string, proxy: string | undefined): Promise<Checked> {
  const { host } = new URL(server);
  const id = `tunnel/gateway@${host}`;
  const startedMs = performance.now();
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no answer within ${PATIENCE_MS / 1_000} s`)), PATIENCE_MS);
  const dialled = dial({ server, proxy, tls: { ca } }).then((socket) => {
    const until = new Date(socket.getPeerCertificate().valid_to).toISOString().slice(0, 10);
    socket.destroy();
    return until;
  });
  try {
    const until = await Promise.race([dialled, late]);
    return ok(id, `its certificate is believed, until ${until} (${Math.round(performance.now() - startedMs)} ms)`);
  } catch (error) {
    return failed(id, reasonOf(error), `Look: openssl s_client -connect ${host} </dev/null; see tunnel.caFile`);
  } finally {
    clearTimeout(timer);
    // One that fails later still is nobody's.
    void dialled.catch(() => {});
  }
}

function link(report: TunnelGround["report"]): Checked[] {
  const id = "tunnel/link";
  if (report === undefined) return [failed(id, "no daemon answers, so there is no tunnel", "systemctl start holdfast")];
  const { tunnel, nowMs } = report;
  if (tunnel === undefined)
    return [
      failed(id, "configured, and the running daemon has none: it was started before", "systemctl restart holdfast"),
    ];
  const { gateway, place, problem, roundTripMs, sinceMs, state } = tunnel;
  if (state === "connecting") {
    const seconds = Math.round((nowMs - sinceMs) / 1_000);
    return [failed(id, `down for ${seconds} s, trying ${gateway}: ${problem ?? "no answer yet"}`, LOOK_AT_GATEWAY)];
  }
  return [
    ok(id, `open to ${gateway}${roundTripMs === undefined ? "" : `, ${roundTripMs} ms away`}`),
    place === undefined
      ? warning("tunnel/place", "the gateway has given this node no place: nobody dials it", LOOK_AT_GATEWAY)
      : ok("tunnel/place", `the API server dials ${place}`),
  ];
}

/** An API server that verifies kubelets believes a certificate that names the place, and no other. */
function serving({ config: { servesKubelet, stateDir }, machine }: TunnelGround): Checked[] {
  const id = "tunnel/serving";
  if (!servesKubelet) return [];
  if (!existsSync(placeOf(machine, kubeletServingPath(stateDir))))
    return [
      warning(
        id,
        "kubelet's serving certificate is asked for and not there yet",
        "See: kubectl get csr; the guard approves it with --approve-csrs, a person by kubectl certificate approve",
      ),
    ];
  return existsSync(placeOf(machine, KUBELET_SERVING_DROP_IN))
    ? [ok(id, "kubelet serves by the certificate that Holdfast keeps for it")]
    : [
        warning(
          id,
          "the certificate is there, and kubelet has not been led to it",
          "Within a minute on an adopted node; see: systemctl status holdfast-bypass.timer; elsewhere docs/tunnel.md",
        ),
      ];
}
