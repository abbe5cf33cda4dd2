/**
 * Kubelet's view of the few objects by which its pods find the API server
 * (`kube/pod-access.ts`), laid over every answer on its last step out: what is
 * kept stays what the API server said, and a change takes effect with the next
 * read, whatever the link does.
 *
 * It is asked for as JSON, uncompressed: a Service or a ConfigMap is changed
 * as text.
 */

import type { Caller } from "../callers/identify.ts";
import { JsonPieces } from "../kube/json-pieces.ts";
import { isShownOtherwise, shownToKubelet, type PodAccess } from "../kube/pod-access.ts";
import type { Representation } from "../kube/representation.ts";
import type { Exchange } from "./exchange.ts";
import type { RequestInfo } from "./request-info.ts";

const PLAIN_JSON: Representation = { format: "json", as: "object", asVersion: "" };
const READS = new Set(["get", "list", "watch"]);
const NEGOTIATED = new Set(["accept", "accept-encoding"]);

/** Lays it over. @param access undefined where pods go their own way. */
export function asKubeletSees(
  exchange: Exchange,
  { verb, group, resource, subresource, name }: RequestInfo,
  caller: Pick<Caller, "nodeName">,
  access: PodAccess | undefined,
): Exchange {
  const isConcerned =
    access !== undefined &&
    caller.nodeName !== undefined &&
    READS.has(verb) &&
    subresource === "" &&
    isShownOtherwise(group, resource) &&
    exchange.accepted.some(({ format, as }) => format === "json" && as === "object");
  if (!isConcerned) return exchange;
  const isList = verb === "list" && name === "";
  exchange.response.edit(
    new JsonPieces(
      isList ? 3 : 1,
      (piece) => shownToKubelet(piece, resource, access),
      () => {},
    ),
  );
  const headers = exchange.headers.filter(([header]) => !NEGOTIATED.has(header.toLowerCase()));
  return {
    ...exchange,
    get signal() {
      return exchange.signal;
    },
    accepted: [PLAIN_JSON],
    headers: [...headers, ["Accept", "application/json"], ["Accept-Encoding", "identity"]],
    header: (wanted) =>
      wanted === "accept" ? "application/json" : wanted === "accept-encoding" ? "identity" : exchange.header(wanted),
  };
}
