/**
 * What goes over the uplink, counted: heads and bodies each way, before TLS.
 *
 * Counted where the bytes are handed over anyway, by two additions. What the
 * kernel and TLS add (handshakes, records, acknowledgements) is not in it:
 * a tenth on lists, as much again on a lease.
 */

import type { UpstreamBody, UpstreamResponse } from "./upstream-answer.ts";

/** Bytes since the process began. */
export const wanBytes = { sent: 0, received: 0 };

/** A response of the runtime's own client: its body is counted as it is read, its head by what it says. */
export function countedResponse(response: UpstreamResponse): UpstreamResponse {
  const { status, headers, body } = response;
  for (const [name, value] of Object.entries(headers.toJSON())) wanBytes.received += name.length + value.length + 4;
  const length = headers.get("content-length");
  if (length !== null || body === null) {
    wanBytes.received += Number(length ?? 0);
    return response;
  }
  const counted = countedBody(body);
  return {
    status,
    headers,
    body: counted,
    async bytes() {
      const bytes = await response.bytes();
      wanBytes.received += bytes.length;
      return bytes;
    },
  };
}

function countedBody(body: UpstreamBody): UpstreamBody {
  return {
    getReader() {
      const reader = body.getReader();
      return {
        async read() {
          const part = await reader.read();
          wanBytes.received += part.value?.length ?? 0;
          return part;
        },
        cancel: () => reader.cancel(),
      };
    },
    cancel: () => body.cancel(),
    async *[Symbol.asyncIterator]() {
      for await (const part of body) {
        wanBytes.received += part.length;
        yield part;
      }
    },
  };
}
