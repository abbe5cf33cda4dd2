/**
 * The way to an API server, layer by layer, each with its own verdict: what is
 * broken is the first layer that fails, and nothing above it is tried.
 *
 *   proxy   which way it goes         dns    the name's addresses
 *   tcp     a connection              tls    a certificate that the cluster's CA vouches for
 *   http    a version document        api    what our own credential may do
 *
 * Something that answers in the API server's place (a portal, a firewall's
 * page) shows at tls or http, and is named as such. No credential goes out
 * before the certificate has been believed.
 */

import { lookup } from "node:dns/promises";
import * as net from "node:net";
import type { UpstreamConfig } from "../../config/config.ts";
import { nodeOf } from "../../node/own-node.ts";
import { dial } from "../../uplink/dial.ts";
import { untrusted } from "../../uplink/untrusted.ts";
import { reasonOf } from "../../uplink/upstream.ts";
import { isVersionDocument } from "../../kube/whose-word.ts";
import { failed, ok, skipped, warning, type Checked } from "./checked.ts";

const PATIENCE_MS = 5_000;
/** Of a page that something else shows in the API server's place no more is read. */
const MAX_BODY_BYTES = 65_536;

/** What one layer hands to the next. */
interface Way {
  readonly server: string;
  readonly upstream: UpstreamConfig;
  readonly proxy: string | undefined;
  /** Where the connection goes: the proxy's place, or the server's. */
  readonly first: URL;
}

/** A layer: its verdict; the next one is tried when it did not fail. */
type LayerCheck = (id: string, way: Way) => Promise<Checked> | Checked;

const LAYERS: readonly (readonly [string, LayerCheck])[] = [
  ["proxy", byProxy],
  ["dns", byName],
  ["tcp", byConnection],
  ["tls", byCertificate],
  ["http", byVersion],
  ["api", byCredential],
];

/** Looks at the way to every API server. Ids are network/LAYER, with the server behind them where there are several. */
export async function networkChecks(upstream: UpstreamConfig): Promise<Checked[]> {
  const all = await Promise.all(upstream.servers.map((server) => checkWay(server, upstream)));
  return all.flat();
}

async function checkWay(server: string, upstream: UpstreamConfig): Promise<Checked[]> {
  const proxy = upstream.proxyFor(server);
  const way: Way = { server, upstream, proxy, first: new URL(proxy ?? server) };
  const suffix = upstream.servers.length > 1 ? `@${new URL(server).host}` : "";
  const checks: Checked[] = [];
  for (const [layer, check] of LAYERS) {
    const isBlocked = checks.some(({ level }) => level === "failed");
    const id = `network/${layer}${suffix}`;
    checks.push(isBlocked ? skipped(id, "a layer below it failed") : await check(id, way));
  }
  return checks;
}

function byProxy(id: string, { proxy, first }: Way): Checked {
  return ok(id, proxy === undefined ? "directly" : `through the proxy ${first.protocol}//${first.host}`);
}

async function byName(id: string, { first }: Way): Promise<Checked> {
  const host = hostOf(first);
  if (net.isIP(host) !== 0) return skipped(id, `${host} is an address`);
  const startedMs = performance.now();
  try {
    const found = await inTime(lookup(host, { all: true }));
    return ok(id, `${host} is ${found.map(({ address }) => address).join(", ")} (${since(startedMs)})`);
  } catch (error) {
    return failed(id, `${host} has no address: ${reasonOf(error)}`, `See: getent hosts ${host}; cat /etc/resolv.conf`);
  }
}

async function byConnection(id: string, { first }: Way): Promise<Checked> {
  const [host, port] = [hostOf(first), portOf(first)];
  const startedMs = performance.now();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = net.connect({ host, port });
  socket.once("connect", resolve);
  socket.once("error", reject);
  try {
    await inTime(promise);
    return ok(id, `${host} port ${port} (${since(startedMs)})`);
  } catch (error) {
    const reason = reasonOf(error);
    const why =
      reason === "ECONNREFUSED"
        ? "refused: nothing listens there, or a firewall says no"
        : reason === "timeout"
          ? `no answer within ${PATIENCE_MS / 1_000} s: a firewall or a dead link swallows it`
          : reason;
    return failed(id, `${host} port ${port}: ${why}`, `See: ip route get ${host}; ping ${host}`);
  } finally {
    socket.destroy();
  }
}

/** Without our certificate: who it is has not been proven yet. */
async function byCertificate(id: string, { server, upstream, proxy }: Way): Promise<Checked> {
  const startedMs = performance.now();
  const { tlsServerName: serverName } = upstream;
  try {
    const socket = await inTime(
      dial({ server, proxy, tls: { ca: upstream.caPem(), ...(serverName === undefined ? {} : { serverName }) } }),
    );
    const { valid_to: validTo } = socket.getPeerCertificate();
    socket.destroy();
    return ok(
      id,
      `the cluster's CA vouches for it, until ${new Date(validTo).toISOString().slice(0, 10)} (${since(startedMs)})`,
    );
  } catch (error) {
    const reason = reasonOf(error);
    const finding = untrusted(server, reason);
    return finding === undefined
      ? failed(id, reason, `Look: openssl s_client -connect ${new URL(server).host} </dev/null`)
      : failed(id, finding.message, finding.next ?? "");
  }
}

async function byVersion(id: string, way: Way): Promise<Checked> {
  const startedMs = performance.now();
  const next = `Look: curl -kv ${way.server}/version`;
  try {
    const response = await ask(way, "/version", {});
    const body = await response.text();
    if (response.status === 200 && isVersionDocument(Buffer.from(body))) {
      const { gitVersion } = JSON.parse(body) as { gitVersion?: string };
      return ok(id, `Kubernetes ${String(gitVersion).slice(0, 64)} (${since(startedMs)})`);
    }
    const isItsWord = (response.status === 401 || response.status === 403) && body.includes('"kind":"Status"');
    return isItsWord || /"kind": ?"Status"/.test(body.slice(0, MAX_BODY_BYTES))
      ? ok(id, `an API server that shows its version to nobody unknown (${response.status})`)
      : failed(id, `something else answers in the API server's place (${response.status})`, next);
  } catch (error) {
    return failed(id, reasonOf(error), next);
  }
}

async function byCredential(id: string, way: Way): Promise<Checked> {
  const { credential } = way.upstream;
  const node = nodeOf(credential);
  const target = node === undefined ? "/api" : `/api/v1/nodes/${encodeURIComponent(node.name)}`;
  try {
    const { status } =
      credential.kind === "certificate"
        ? await ask(way, target, {}, credential.read())
        : await ask(way, target, { Authorization: `Bearer ${credential.read()}` });
    const who = node === undefined ? "our credential" : `node ${node.name}`;
    if (status === 200) return ok(id, `${who} is known`);
    if (status === 401)
      return failed(
        id,
        "our credential is refused (401)",
        "See: holdfast cert status; renew it or join the node again",
      );
    if (status === 404)
      return failed(id, `${who} is not there any more (404)`, "Join the node again, or see kubectl get nodes");
    return warning(id, `the API server answers ${status} to ${who}`, `See: kubectl auth whoami with that kubeconfig`);
  } catch (error) {
    return failed(id, reasonOf(error), "See: holdfast cert status");
  }
}

function ask(
  { server, upstream, proxy }: Way,
  target: string,
  headers: Readonly<Record<string, string>>,
  pair?: { readonly certPem: string; readonly keyPem: string },
): Promise<Response> {
  const { tlsServerName } = upstream;
  return fetch(`${server}${target}`, {
    tls: {
      ca: upstream.caPem(),
      ...(tlsServerName === undefined ? {} : { serverName: tlsServerName }),
      ...(pair === undefined ? {} : { cert: pair.certPem, key: pair.keyPem }),
    },
    ...(proxy === undefined ? {} : { proxy }),
    redirect: "manual",
    keepalive: false,
    headers: { Accept: "application/json", ...headers },
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
}

async function inTime<T>(promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("timeout")), PATIENCE_MS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function since(startedMs: number): string {
  return `${Math.round(performance.now() - startedMs)} ms`;
}

function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, "");
}

function portOf({ port, protocol }: URL): number {
  return port === "" ? (protocol === "https:" ? 443 : 80) : Number(port);
}
