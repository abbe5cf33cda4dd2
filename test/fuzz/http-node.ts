/**
 * Node's own HTTP server (llhttp) as a third reader.
 *
 * It is more lenient than ours by design of its own, so what counts is one
 * way: wherever both read a request they must read the same one, and it may
 * read none that ours passes over unrefused.
 */

import { join } from "node:path";
import type { ReadRequest, ReadStream } from "./http-reference.ts";

/** What Node made of a stream. */
interface NodeRead {
  readonly requests: readonly Omit<ReadRequest, "headers">[];
  readonly isRefused: boolean;
}

/** Why Node cannot be asked here; undefined when it can. */
export const whyWithoutNode: string | undefined = Bun.which("node") === null ? "node is not installed" : undefined;

/** Has Node read streams, in one process. */
export async function readByNode(texts: readonly string[]): Promise<NodeRead[]> {
  const child = Bun.spawn(["node", join(import.meta.dir, "node-reader.mjs")], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const said = new Response(child.stdout).text();
  for (const text of texts) {
    child.stdin.write(`${Buffer.from(text, "latin1").toString("base64")}\n`);
    await child.stdin.flush();
  }
  await child.stdin.end();
  const lines = (await said).trim().split("\n");
  if (lines.length !== texts.length) throw new Error(`Node read ${lines.length} of ${texts.length} streams`);
  return lines.map((line) => JSON.parse(line) as NodeRead);
}

/** Where two readers take one stream for two things. @returns undefined when they do not. */
export function disagreement(ours: ReadStream, node: NodeRead): string | undefined {
  const both = Math.min(ours.requests.length, node.requests.length);
  const text = ({ method, target, body }: Omit<ReadRequest, "headers">) => JSON.stringify([method, target, body]);
  for (let i = 0; i < both; i++)
    if (text(ours.requests[i]!) !== text(node.requests[i]!)) return `request ${i} is ${text(ours.requests[i]!)} to us`;
  // What has only begun to us is let go by its deadline, unread; Node still knows HTTP/0.9.
  if (node.requests.length > both && ours.end === "whole") return "it reads more";
  if (ours.requests.length > both && !node.isRefused) return "it reads fewer, and refuses nothing";
  return undefined;
}
