/**
 * Who asks, and with what credential the API server is asked on their behalf.
 *
 * A client certificate counts when a trusted CA signed it and it is within its
 * dates; its private key is not ours, so it can only be passed on when the
 * configuration holds a credential for the same subject. A bearer token is its
 * own credential and goes up untouched, on a connection without our
 * certificate; whom a pod's token speaks for is `service-accounts.ts`'s matter. Neither: 401, on loopback too, because every container with the
 * host's network can reach loopback.
 *
 * User-Agent is never identity.
 */

import type { PeerCertificate } from "node:tls";
import type { Credential } from "../kube/credential.ts";
import { StatusError, badRequest } from "../kube/status-error.ts";
import { MAX_TOKEN_LENGTH } from "./token-claims.ts";
import type { UpstreamCredential } from "../uplink/upstream.ts";

/** Who is at the other end of a connection, as TLS found out. One object for each connection. */
export interface Peer {
  /** A trusted CA signed its certificate, and the dates hold. */
  readonly authorized: boolean;
  /** Why not: an OpenSSL code such as "CERT_HAS_EXPIRED". */
  readonly authorizationError: string | undefined;
  /** What it showed, trusted or not; undefined without one. */
  getPeerCertificate(): PeerCertificate | undefined;
}

/** What a request presents of its caller: an exchange, as identification sees it. */
export interface Presented {
  /** Names as sent, in order. */
  readonly headers: readonly (readonly [string, string])[];
  /** The first value of a header, by its lower-case name. */
  header(name: string): string | undefined;
  readonly socket: Peer;
}

/** An authenticated caller. */
export interface Caller {
  /** "certificate:CN|O,O", "serviceaccount:NAMESPACE:NAME:UID" or "token:HASH"; what scopes and answers are kept under. */
  readonly principal: string;
  readonly credential: UpstreamCredential;
  /** Goes up with our own credential. */
  readonly isOwn: boolean;
  /** Known without a word of the API server to this very credential: ours, a configured one, a proven service account. */
  readonly isVouched: boolean;
  /** The name of this node, when the caller is this node: its certificate says system:node:NAME in system:nodes, as ours does. */
  readonly nodeName: string | undefined;
  /** Acts as somebody else (Impersonate-*): the API server judges, nothing is kept. */
  readonly isImpersonating: boolean;
}

/** What identification needs. */
export interface IdentifyParts {
  /** Our own credential towards the API server, and who it makes us. */
  readonly own: Credential;
  /** User name of our own token, when `own` is one; undefined while unknown. */
  readonly ownTokenUser: () => string | undefined;
  /** Credentials for callers on other certificates, by CN. */
  readonly clients: readonly { readonly name: string; readonly credential: Credential }[];
  readonly keyedHash: (text: string) => string;
  /** Whether a trusted client CA signed this certificate (DER) for client authentication, whatever its dates. */
  readonly signedForClients: (certificate: Uint8Array) => boolean;
  /** A certificate's dates, PEM or DER. */
  readonly datesOf: (certificate: string | Uint8Array) => { readonly notBeforeMs: number; readonly notAfterMs: number };
  /** Whether a certificate that ends then was good when the API server was last heard, and nothing has been heard since. */
  readonly heldAtTheCut: (notAfterMs: number) => boolean;
  /** True for tokens the API server has refused, by their credential's id. */
  readonly isRefused: (id: string) => boolean;
  /** The service account that a token speaks for; undefined where it speaks for itself. */
  readonly serviceAccountOf: (token: string) => string | undefined;
}

interface Subject {
  readonly name: string;
  readonly groups: readonly string[];
}

/** What a connection's certificate says; parsing it again for every request would cost as much as the rest of identification. */
interface PeerSubject extends Subject {
  readonly principal: string;
  readonly notAfterMs: number;
  /** Accepted though its dates do not hold by our clock. */
  readonly isTimeless: boolean;
  /** Who it was the last time, with which credential. */
  caller: Caller | undefined;
}

/** What a header block says of its sender; clients send the same block again and again. */
interface Marks {
  readonly isImpersonating: boolean;
  /** Found in it: the name of a header that only a front proxy may set. */
  readonly frontProxyHeader: string | undefined;
  readonly hasSeveralAuthorizations: boolean;
  readonly token: string | undefined;
  /** The token's, before anybody has judged it. */
  credential: UpstreamCredential | undefined;
}

const MAX_REMEMBERED_TOKENS = 1024;
const MAX_SUBJECTS = 64;
const TIME_ERRORS: ReadonlySet<string> = new Set(["CERT_NOT_YET_VALID", "CERT_HAS_EXPIRED"]);

/** Tells callers apart. */
export class Identifier {
  #byToken = new Map<string, UpstreamCredential>();
  #bySocket = new WeakMap<object, PeerSubject>();
  #marks = new WeakMap<Presented["headers"], Marks>();
  #ownCredential: UpstreamCredential | undefined;
  /** When the certificates of those who came end, by name. */
  #ends = new Map<string, number>();
  /** Of our own and the configured certificates, by their PEM. */
  #subjects = new Map<string, Subject>();

  constructor(
    private readonly parts: IdentifyParts,
    private readonly readSubject: (certPem: string) => Subject,
  ) {}

  /**
   * The caller of a request.
   *
   * @throws {StatusError} 401 without a valid credential, 403 for a
   *   certificate that cannot be passed on, 400 for contradicting headers.
   */
  identify(presented: Presented): Caller {
    const { isImpersonating, frontProxyHeader, hasSeveralAuthorizations } = this.#marksOf(presented);
    if (frontProxyHeader !== undefined)
      throw badRequest(
        `The header ${frontProxyHeader} is not accepted: only the API server's own front proxy may set it`,
      );
    if (hasSeveralAuthorizations) throw badRequest("More than one Authorization header");
    const certificate = this.#certificate(presented);
    const authorization = presented.header("authorization");
    const mapped = certificate === undefined ? undefined : this.#credentialFor(certificate);
    if (certificate !== undefined && mapped !== undefined) return callerOf(certificate, mapped, isImpersonating);
    if (authorization !== undefined) return { ...this.#byAuthorization(presented), isImpersonating };
    if (certificate !== undefined) {
      throw new StatusError({
        code: 403,
        reason: "Forbidden",
        message: `The client certificate of "${certificate.name}" cannot be passed on to the API server, because its key is not known here; add a credential for it under "clients" in the configuration: clients: [{name: "${certificate.name}", kubeconfig: FILE}]`,
      });
    }
    throw unauthorized();
  }

  /** The certificates that were seen and believed since start, by their CN; of several of a name the last. */
  get seen(): ReadonlyMap<string, number> {
    return this.#ends;
  }

  /** A token that the API server has accepted need not be hashed for each of its requests. */
  keep(credential: UpstreamCredential): void {
    const [, token] = BEARER.exec(credential.authorization ?? "") ?? [];
    if (token === undefined || token.length > MAX_TOKEN_LENGTH || this.#byToken.has(token)) return;
    if (this.#byToken.size >= MAX_REMEMBERED_TOKENS) this.#byToken.delete(this.#byToken.keys().next().value!);
    this.#byToken.set(token, credential);
  }

  /** The credential in a Bearer header, before anybody has judged it; undefined without one. */
  bearerOf(presented: Presented): { readonly token: string; readonly credential: UpstreamCredential } | undefined {
    const marks = this.#marksOf(presented);
    if (marks.token === undefined) return undefined;
    marks.credential ??= this.#tokenCredential(marks.token);
    return marks as { readonly token: string; readonly credential: UpstreamCredential };
  }

  #byAuthorization(presented: Presented): Omit<Caller, "isImpersonating"> {
    const bearer = this.bearerOf(presented);
    if (bearer === undefined) throw unauthorized();
    const { token, credential } = bearer;
    if (this.parts.isRefused(credential.id)) throw unauthorized();
    const account = this.parts.serviceAccountOf(token);
    return {
      principal: account ?? credential.id,
      credential,
      isOwn: false,
      isVouched: account !== undefined,
      nodeName: undefined,
    };
  }

  #marksOf(presented: Presented): Marks {
    let marks = this.#marks.get(presented.headers);
    if (marks === undefined) this.#marks.set(presented.headers, (marks = readMarks(presented)));
    return marks;
  }

  #tokenCredential(token: string): UpstreamCredential {
    return (
      this.#byToken.get(token) ?? {
        id: `token:${this.parts.keyedHash(token)}`,
        authorization: `Bearer ${token}`,
      }
    );
  }

  #certificate({ socket }: Presented): PeerSubject | undefined {
    let subject = this.#bySocket.get(socket);
    if (subject === undefined) {
      // A rogue certificate has a readable subject too; only `authorized` says that a trusted CA signed it.
      const isTimeless = !socket.authorized && this.#isAsGoodAsOurs(socket);
      if (!socket.authorized && !isTimeless && !this.#hasEndedInTheCut(socket)) return undefined;
      const read = peerSubject(socket.getPeerCertificate());
      if (read === undefined) return undefined;
      subject = { ...read, isTimeless, caller: undefined };
      this.#bySocket.set(socket, subject);
      if (this.#ends.size < MAX_SUBJECTS || this.#ends.has(subject.name))
        this.#ends.set(subject.name, subject.notAfterMs);
    }
    // A resumed session or a long connection may outlive the certificate.
    const isGood =
      subject.isTimeless || subject.notAfterMs >= Date.now() || this.parts.heldAtTheCut(subject.notAfterMs);
    return isGood ? subject : undefined;
  }

  /** A cut is not an event: who was known when it began is known until it ends. The signature is checked here, as below. */
  #hasEndedInTheCut(socket: Peer): boolean {
    const raw = TIME_ERRORS.has(String(socket.authorizationError)) ? socket.getPeerCertificate()?.raw : undefined;
    if (raw === undefined) return false;
    const { notBeforeMs, notAfterMs } = this.parts.datesOf(raw);
    return notBeforeMs <= Date.now() && this.parts.heldAtTheCut(notAfterMs) && this.parts.signedForClients(raw);
  }

  /**
   * A gateway without a clock of its own boots in 1970, and a long cut outlives
   * certificates: kubelet must be served all the same. Only while our own
   * certificate's dates do not hold either, and only for one that the cluster's
   * CA signed, for clients, that is good for at least as long as ours. The
   * wrong time hides a forged signature from TLS, so it is checked here.
   */
  #isAsGoodAsOurs(socket: Peer): boolean {
    const { own, signedForClients } = this.parts;
    if (own.kind !== "certificate" || !TIME_ERRORS.has(String(socket.authorizationError))) return false;
    const raw = socket.getPeerCertificate()?.raw;
    if (raw === undefined) return false;
    const mine = this.parts.datesOf(own.read().certPem);
    const nowMs = Date.now();
    if (nowMs >= mine.notBeforeMs && nowMs <= mine.notAfterMs) return false;
    return signedForClients(raw) && this.parts.datesOf(raw).notAfterMs >= mine.notAfterMs;
  }

  #credentialFor(subject: Subject): UpstreamCredential | undefined {
    const { own, clients } = this.parts;
    const named = clients.find((client) => client.name === subject.name);
    if (named !== undefined && this.#isSubjectOf(named.credential, subject))
      return upstreamCredential(`client:${named.name}`, named.credential);
    if (own.kind === "token")
      return this.parts.ownTokenUser() === subject.name ? upstreamCredential("own", own) : undefined;
    if (!this.#isSubjectOf(own, subject)) return undefined;
    const { certPem } = own.read();
    if (this.#ownCredential?.certificate?.certPem !== certPem) this.#ownCredential = upstreamCredential("own", own);
    return this.#ownCredential;
  }

  /**
   * Whether a credential makes its bearer the same user in the same groups: a
   * certificate of the right name alone must not be given the groups of ours.
   * What a token makes one cannot be read off it: there the configured name counts.
   */
  #isSubjectOf(credential: Credential, subject: Subject): boolean {
    if (credential.kind === "token") return true;
    const { certPem } = credential.read();
    let mine = this.#subjects.get(certPem);
    if (mine === undefined) {
      if (this.#subjects.size >= MAX_SUBJECTS) this.#subjects.clear();
      this.#subjects.set(certPem, (mine = this.readSubject(certPem)));
    }
    return mine.name === subject.name && haveSame(mine.groups, subject.groups);
  }
}

function haveSame(groups: readonly string[], others: readonly string[]): boolean {
  if (groups.length === 1 && others.length === 1) return groups[0] === others[0];
  const asked = new Set(others);
  return new Set(groups).size === asked.size && groups.every((group) => asked.has(group));
}

/** The token in an Authorization header. */
const BEARER = /^Bearer +([^\s]+)$/i;

function readMarks(presented: Presented): Marks {
  let isImpersonating = false;
  let frontProxyHeader: string | undefined;
  let authorizations = 0;
  for (const [name] of presented.headers) {
    const lower = name.toLowerCase().replaceAll("_", "-");
    if (lower.startsWith("x-remote-")) frontProxyHeader ??= name;
    if (lower.startsWith("impersonate-")) isImpersonating = true;
    if (lower === "authorization") authorizations++;
  }
  const [, token] = BEARER.exec(presented.header("authorization") ?? "") ?? [];
  const hasSeveralAuthorizations = authorizations > 1;
  return { isImpersonating, frontProxyHeader, hasSeveralAuthorizations, token, credential: undefined };
}

/** The holder of a certificate; of a connection's earlier request, if nothing has changed. */
function callerOf(subject: PeerSubject, credential: UpstreamCredential, isImpersonating: boolean): Caller {
  const { caller, principal } = subject;
  if (caller !== undefined && caller.credential === credential && !isImpersonating) return caller;
  const isOwn = credential.id === "own";
  const nodeName = isOwn && !isImpersonating ? nodeNameOf(subject) : undefined;
  const made = { principal, credential, isOwn, isVouched: true, nodeName, isImpersonating };
  if (!isImpersonating) subject.caller = made;
  return made;
}

function peerSubject(peer: PeerCertificate | undefined): Omit<PeerSubject, "isTimeless" | "caller"> | undefined {
  if (peer?.subject === undefined || peer.valid_to === undefined) return undefined;
  const { CN, O } = peer.subject as unknown as { CN?: string | string[]; O?: string | string[] };
  // Of several the last one counts, as in Go: the API server must take the bearer for the same user.
  const name = Array.isArray(CN) ? CN.at(-1) : CN;
  if (name === undefined || name === "") return undefined;
  const groups = O === undefined ? [] : Array.isArray(O) ? O : [O];
  return {
    name,
    groups,
    principal: certificatePrincipal({ name, groups }),
    notAfterMs: Date.parse(peer.valid_to),
  };
}

/** The node a subject is; undefined when it is none. */
export function nodeNameOf({
  name,
  groups,
}: {
  readonly name: string;
  readonly groups: readonly string[];
}): string | undefined {
  const [, nodeName] = /^system:node:(.+)$/.exec(name) ?? [];
  return groups.includes("system:nodes") ? nodeName : undefined;
}

/** Under which principal a certificate's holder is kept. */
export function certificatePrincipal({
  name,
  groups,
}: {
  readonly name: string;
  readonly groups: readonly string[];
}): string {
  return `certificate:${name}|${[...groups].sort().join(",")}`;
}

/** A credential as the upstream takes it. */
export function upstreamCredential(id: string, credential: Credential): UpstreamCredential {
  return credential.kind === "certificate"
    ? { id, certificate: credential.read() }
    : { id, authorization: `Bearer ${credential.read()}` };
}

function unauthorized(): StatusError {
  return new StatusError({ code: 401, reason: "Unauthorized", message: "Unauthorized" });
}
