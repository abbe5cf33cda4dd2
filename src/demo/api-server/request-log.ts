/**
 * What the server was asked, for tests to count.
 */

import type { LoggedRequest } from "./api-server.ts";
import type { Exchange } from "./exchange.ts";

const MAX_LOGGED_REQUESTS = 20_000;

/** The last requests, oldest first. */
export class RequestLog {
  readonly requests: LoggedRequest[] = [];

  /** Notes one; its user and status are filled in as they become known. */
  add(exchange: Exchange): LoggedRequest {
    const { request, info } = exchange;
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [
        name,
        Array.isArray(value) ? value.join(", ") : String(value),
      ]),
    );
    const logged: LoggedRequest = {
      ...info,
      method: exchange.method,
      target: request.url ?? "/",
      headers,
      httpVersion: request.httpVersion,
      user: "",
      status: 0,
      startedAtMs: Date.now(),
      get bytesSent() {
        return exchange.bytesSent;
      },
    };
    this.requests.push(logged);
    if (this.requests.length > MAX_LOGGED_REQUESTS) this.requests.shift();
    return logged;
  }
}
