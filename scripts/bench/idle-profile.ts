/**
 * What an idle node's bytes are: requests by the API server's audit log,
 * connections by the edge's own kernel.
 */

import type { AuditedRequest } from "../../test/lab/audit.ts";
import { runProcess } from "../../test/lab/processes.ts";

/** Requests of one kind, most frequent first. */
export function requestsOf(requests: readonly AuditedRequest[]): { readonly what: string; readonly count: number }[] {
  const counts = new Map<string, number>();
  for (const { user, verb, uri, code } of requests) {
    const [path = ""] = uri.split("?");
    const what = `${code ?? 0} ${verb} ${path.replace(/[0-9a-f]{8,}[-0-9a-z]*/g, "*")} (${user.replace("system:", "")})`;
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  return [...counts].map(([what, count]) => ({ what, count })).toSorted((a, b) => b.count - a.count);
}

/** Established connections to the API server within a namespace: program, bytes and segments both ways. */
export async function connectionsOf(namespace: string): Promise<string[]> {
  const { stdout } = await runProcess(["ip", "netns", "exec", namespace, "ss", "-tinpHO", "dport = :6443"]);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const of = (name: string) => new RegExp(`\\b${name}:(\\d+)`).exec(line)?.[1] ?? "0";
      const [, program = "?"] = /users:\(\("([^"]+)"/.exec(line) ?? [];
      return `${program}: sent ${of("bytes_sent")}, received ${of("bytes_received")}, segments ${of("segs_out")}/${of("segs_in")}`;
    });
}
