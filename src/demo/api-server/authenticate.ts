/**
 * Who asks: a client certificate first, then a bearer token, as the real
 * server's default chain has it.
 */

import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { Exchange } from "./exchange.ts";
import { unauthorized } from "./failure.ts";
import type { User } from "./request.ts";
import type { Tokens } from "./tokens.ts";

const ALL_AUTHENTICATED = "system:authenticated";
const ANONYMOUS: User = { name: "system:anonymous", groups: ["system:unauthenticated"] };

/** Bearer tokens known by heart. */
export type TokenTable = ReadonlyMap<string, User>;

/** What authentication looks at. */
export interface Authenticators {
  readonly table: TokenTable;
  readonly tokens: Tokens;
  readonly allowsAnonymous: boolean;
}

const byCertificate = new WeakMap<object, User>();

/** @throws {Failure} 401 for a credential that is none, and for none at all unless anonymous requests are allowed. */
export function authenticate(exchange: Exchange, { table, tokens, allowsAnonymous }: Authenticators): User {
  const fromCertificate = certificateUser(socketOf(exchange));
  if (fromCertificate) return fromCertificate;
  const token = /^Bearer\s+(.+)$/i.exec(exchange.header("authorization"))?.[1]?.trim();
  if (!token) {
    if (allowsAnonymous) return ANONYMOUS;
    throw unauthorized();
  }
  const user = table.get(token) ?? tokens.judge(token);
  if (!user) throw unauthorized();
  return user.groups.includes(ALL_AUTHENTICATED) ? user : { ...user, groups: [...user.groups, ALL_AUTHENTICATED] };
}

function socketOf({ request }: Exchange): TLSSocket {
  const session = "stream" in request ? request.stream?.session : undefined;
  return (session?.socket ?? request.socket) as TLSSocket;
}

/** @throws {Failure} 401 for a certificate that our CA did not sign. */
function certificateUser(socket: TLSSocket): User | undefined {
  const known = byCertificate.get(socket);
  if (known) return known;
  const raw = socket.getPeerCertificate?.()?.raw as Buffer | undefined;
  if (!raw || raw.length === 0) return undefined;
  if (!socket.authorized) throw unauthorized();
  const subject = new X509Certificate(raw).subject.split("\n").map((part) => part.split("=", 2) as [string, string]);
  const values = (type: string) => subject.filter(([key]) => key === type).map(([, value]) => value);
  const user = { name: values("CN")[0] ?? "", groups: [...values("O"), ALL_AUTHENTICATED] };
  byCertificate.set(socket, user);
  return user;
}
