/**
 * The CAs that local clients' certificates are verified against, where they
 * are not the cluster's own: a file that is followed.
 */

import { X509Certificate } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { certificateBlocks } from "../certificates/pem.ts";
import { ConfigError, whyUnreadable } from "./config-error.ts";
import { Followed, type ReadFile } from "./followed.ts";

/** Follows a CA file. @param origin the flag or field that names it. @throws {ConfigError} */
export function followCaFile(
  origin: string,
  path: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Followed<string> {
  return new Followed({
    what: `CA file "${path}"`,
    clock,
    load: (read) => readCa(origin, path, read),
    onProblem: (reason) => log.warn("new content cannot be used, the former stands", { file: path, reason }),
  });
}

/** The certificates of a CA file; a damaged one would turn every local client away, so it is found now. */
function readCa(origin: string, path: string, read: ReadFile): string {
  let pem: string;
  try {
    pem = read(path);
  } catch (error) {
    throw new ConfigError(`Cannot read CA file "${path}" (${origin}): ${whyUnreadable(error)}`, { cause: error });
  }
  const blocks = certificateBlocks(pem);
  if (blocks.length === 0)
    throw new ConfigError(`Cannot use CA file "${path}" (${origin}): it holds no PEM certificate`);
  for (const [index, block] of blocks.entries()) {
    try {
      new X509Certificate(block);
    } catch {
      throw new ConfigError(
        `Cannot use CA file "${path}" (${origin}): certificate number ${index + 1} of ${blocks.length} cannot be read`,
      );
    }
  }
  return `${blocks.join("\n")}\n`;
}
