/**
 * What reached the API server, by its own audit log.
 *
 * The claim "nothing was listed again" is about the far end of the link, so the
 * far end is asked. The log is written before the answer goes out
 * (`--audit-log-mode=blocking`), so what a client has seen stands in it.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";

/** One request, as the API server saw it. */
export interface AuditedRequest {
  readonly verb: string;
  readonly user: string;
  readonly userAgent: string;
  readonly uri: string;
  readonly resource: string;
  readonly namespace: string | undefined;
  readonly sourceAddress: string;
  /** A streaming list: a watch that begins with all objects. */
  readonly isStreamingList: boolean;
  readonly code: number | undefined;
}

const POLICY = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: Metadata, verbs: [get, list, watch]}
- {level: None}
`;

export class Audit {
  private readonly policyPath: string;
  private readonly logPath: string;

  /** @param sourceAddress only requests from here are counted: the edge, not the API server's own loopback. */
  constructor(
    directory: string,
    private readonly sourceAddress: string,
  ) {
    this.policyPath = `${directory}/audit-policy.yaml`;
    this.logPath = `${directory}/audit.jsonl`;
    writeFileSync(this.policyPath, POLICY);
  }

  get apiServerArguments(): string[] {
    return [`--audit-policy-file=${this.policyPath}`, `--audit-log-path=${this.logPath}`, "--audit-log-mode=blocking"];
  }

  /** Now, for `since`. */
  mark(): number {
    return existsSync(this.logPath) ? statSync(this.logPath).size : 0;
  }

  /** Requests from the edge after the mark, each once. */
  since(mark: number): AuditedRequest[] {
    if (!existsSync(this.logPath)) return [];
    const text = readFileSync(this.logPath).subarray(mark).toString("utf8");
    // The last line may still be on its way.
    const lines = text
      .slice(0, text.lastIndexOf("\n") + 1)
      .split("\n")
      .filter((line) => line !== "");
    const seen = new Map<string, AuditedRequest>();
    for (const line of lines) {
      const entry = JSON.parse(line) as AuditEntry;
      // A watch has two stages, its start and its end: the first one counts.
      if (!seen.has(entry.auditID) && !this.beganBefore(entry, mark)) seen.set(entry.auditID, toRequest(entry));
    }
    return [...seen.values()].filter((request) => request.sourceAddress === this.sourceAddress);
  }

  /** Requests after the mark that ask for a whole collection: LIST, and streaming lists. */
  fullReadsSince(mark: number, resource: string): AuditedRequest[] {
    return this.since(mark).filter((r) => r.resource === resource && (r.verb === "list" || r.isStreamingList));
  }

  private beganBefore(entry: AuditEntry, mark: number): boolean {
    if (mark === 0 || entry.verb !== "watch" || entry.stage === "ResponseStarted") return false;
    return readFileSync(this.logPath).subarray(0, mark).includes(entry.auditID);
  }
}

interface AuditEntry {
  readonly auditID: string;
  readonly stage: string;
  readonly verb: string;
  readonly requestURI: string;
  readonly user: { readonly username: string };
  readonly userAgent?: string;
  readonly sourceIPs?: readonly string[];
  readonly objectRef?: { readonly resource?: string; readonly namespace?: string };
  readonly responseStatus?: { readonly code?: number };
}

function toRequest(entry: AuditEntry): AuditedRequest {
  return {
    verb: entry.verb,
    user: entry.user.username,
    userAgent: entry.userAgent ?? "",
    uri: entry.requestURI,
    resource: entry.objectRef?.resource ?? "",
    namespace: entry.objectRef?.namespace,
    sourceAddress: entry.sourceIPs?.at(-1) ?? "",
    isStreamingList: entry.verb === "watch" && /[?&]sendInitialEvents=true\b/.test(entry.requestURI),
    code: entry.responseStatus?.code,
  };
}
