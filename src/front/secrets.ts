/**
 * Secrets at the end of a long cut.
 *
 * What a pod may read it has, as a rule, mounted or in its memory; a right that
 * was taken back meanwhile is not heard of. So after a time Secrets are for the
 * node alone, which mounts them, and others are told why.
 */

import { unavailable } from "../kube/status-error.ts";
import type { RequestInfo } from "./request-info.ts";

/** @throws {StatusError} 503 for a request that is about Secrets. */
export function refuseSecrets({ group, resource }: RequestInfo): void {
  if (group !== "" || resource !== "secrets") return;
  throw unavailable(
    "Cannot read secrets: the API server has not been reached for so long that they are shown to the node alone (limits.podSecrets)",
  );
}
