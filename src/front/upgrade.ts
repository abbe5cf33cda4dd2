/**
 * Upgrades: exec, attach, port-forward and watches over WebSocket or SPDY.
 *
 *   client                   Holdfast                          API server
 *   ------ head (held) ----->|------ the same head, alone ----->
 *                            |<----- 101 ----------------------   both are joined
 *                            |<----- anything else ------------   answered, both closed
 *
 * The request is replayed byte for byte on an HTTP/1.1 connection of its own.
 * What the client sent behind its head waits until the 101: to an API server
 * that refused, it would be the next request, unjudged. Joined, bytes go both
 * ways untouched, each side paused while the other does not read; keepalive
 * runs towards both, and when the link is lost both end, for a watch that
 * nobody feeds looks like one on which nothing happens.
 */

import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { whoseWord } from "../kube/whose-word.ts";
import { statusBody } from "../kube/status.ts";
import { badRequest } from "../kube/status-error.ts";
import { dial } from "../uplink/dial.ts";
import type { Exchange } from "./exchange.ts";
import type { Caller } from "../callers/identify.ts";
import { reasonOf, type Upstream } from "../uplink/upstream.ts";
import {
  ForeignAnswerError,
  UnreachableError,
  UnsaidError,
  UpstreamRefusedError,
  type LinkView,
} from "../uplink/scope-source.ts";
import { readUpgradeAnswer, type UpgradeAnswer } from "../uplink/upgrade-answer.ts";
import { statusOf } from "./answer.ts";

/** What tunnels need. */
export interface UpgradeParts {
  readonly upstream: Upstream;
  readonly link: Pick<LinkView, "onChange">;
  readonly proxyFor: (server: string) => string | undefined;
  readonly onFailure: (server: string, reason: string) => void;
}

/** An exec waits for kubelet and the container's runtime, through the API server. */
const ANSWER_PATIENCE_MS = 30_000;
/** A NAT that forgets idle connections does so after minutes. */
const KEEPALIVE_MS = 30_000;

/**
 * Opens the way to the API server and joins it with the client's stream.
 *
 * @param early bytes the client sent behind the request's head.
 * @throws {StatusError} 400 for a watch of nodes whose events would have to be changed.
 * @throws {UnreachableError} {UpstreamRefusedError} {UnsaidError} before a byte was written to the client.
 */
export async function tunnelUpgrade(
  parts: UpgradeParts,
  exchange: Exchange,
  caller: Caller,
  client: Duplex,
  early: Uint8Array,
): Promise<void> {
  const { server } = parts.upstream;
  if (parts.upstream.mayChange(exchange.method, exchange.target))
    throw badRequest(
      "Cannot watch nodes over WebSocket: this node is shown where a tunnel ends; watch it without an upgrade",
    );
  const failed = (error: unknown) => {
    parts.onFailure(server, reasonOf(error));
    return new UnreachableError(`Cannot reach the API server: ${reasonOf(error)}`, { cause: error });
  };
  const ended = new AbortController();
  const leave = () => ended.abort(new Error("the client has left"));
  client.once("close", leave);
  let socket: TLSSocket | undefined;
  let answer: UpgradeAnswer;
  try {
    socket = await dial({ server, tls: parts.upstream.tlsFor(caller.credential), proxy: parts.proxyFor(server) });
    socket.write(headOf(exchange, caller, server));
    answer = await readUpgradeAnswer(socket, AbortSignal.any([ended.signal, AbortSignal.timeout(ANSWER_PATIENCE_MS)]));
  } catch (error) {
    socket?.destroy();
    throw ended.signal.aborted ? new UnreachableError("Cannot connect: the client has left") : failed(error);
  } finally {
    client.off("close", leave);
  }
  if (!answer.isJoined) {
    socket.destroy();
    throw refusal(answer);
  }
  socket.setKeepAlive(true, KEEPALIVE_MS);
  client.write(answer.head);
  if (answer.early.length > 0) client.write(answer.early);
  if (early.length > 0) socket.write(early);
  joinUntilLost(parts.link, client, socket);
}

/** Answers a client whose upgrade came to nothing, and closes. */
export function refuseUpgrade(client: Duplex, error: unknown): void {
  const isWord = error instanceof UpstreamRefusedError || error instanceof UnsaidError;
  const { code, reason } = isWord ? { code: error.status, reason: "Refused" } : statusOf(error);
  const type = isWord ? error.contentType : "application/json";
  const body = isWord ? Buffer.from(error.body) : statusBody(statusOf(error), "json");
  const lines = [`HTTP/1.1 ${code} ${reason}`, `Content-Type: ${type}`, `Content-Length: ${body.length}`];
  if (isWord && error.retryAfterSeconds !== undefined) lines.push(`Retry-After: ${error.retryAfterSeconds}`);
  if (code === 401) lines.push("WWW-Authenticate: Bearer");
  client.write(`${lines.join("\r\n")}\r\nConnection: close\r\n\r\n`);
  client.end(body);
}

function headOf(exchange: Exchange, { credential }: Caller, server: string): string {
  const lines = [`${exchange.method} ${exchange.target} HTTP/1.1`, `Host: ${new URL(server).host}`];
  for (const [name, value] of exchange.headers) {
    const lower = name.toLowerCase();
    if (lower !== "host" && lower !== "authorization") lines.push(`${name}: ${value}`);
  }
  if (credential.authorization !== undefined) lines.push(`Authorization: ${credential.authorization}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** Whose word it is decides: a Status is passed on, a page of something else is a lost link, and success without 101 is no answer to this question. */
function refusal({ status, header, body }: UpgradeAnswer & { isJoined: false }): Error {
  const word = status < 300 ? "foreign" : whoseWord({ form: "free" }, { status, header, start: body, isWhole: true });
  if (word !== "refusal" && word !== "unsaid")
    return new ForeignAnswerError(
      `Cannot connect: something answered ${status} in the API server's place, and did not upgrade the connection`,
    );
  const seconds = Number(header("retry-after"));
  const Kind = word === "refusal" ? UpstreamRefusedError : UnsaidError;
  return new Kind(
    status,
    header("content-type") ?? "text/plain",
    Buffer.from(body).toString("utf8"),
    Number.isInteger(seconds) ? seconds : undefined,
  );
}

function joinUntilLost(link: UpgradeParts["link"], client: Duplex, socket: TLSSocket): void {
  const stopListening = link.onChange((isOnline) => {
    if (isOnline) return;
    client.destroy();
    socket.destroy();
  });
  socket.once("close", stopListening);
  join(client, socket);
  join(socket, client);
}

/** Carries bytes one way: pauses the source while the sink does not take them, passes on the end, and ends both when one breaks. */
function join(from: Duplex, to: Duplex): void {
  from.on("data", (chunk: Uint8Array) => {
    if (to.destroyed || to.writableEnded) return;
    if (!to.write(chunk)) from.pause();
  });
  to.on("drain", () => from.resume());
  from.on("end", () => to.end());
  from.on("error", () => to.destroy());
  from.on("close", () => {
    if (!to.writableEnded) to.end();
    setTimeout(() => to.destroy(), 1_000).unref();
  });
  from.resume();
}
