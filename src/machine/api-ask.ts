/**
 * One small question to an API server, from a command: bounded in time and
 * bytes, with a credential or none, and never led elsewhere.
 */

import { EdgeError } from "../base/errors.ts";

/** One answer, at most. */
const PATIENCE_MS = 5_000;
/** A node's pods are some hundred KB; nothing asked for here is larger. */
const MAX_BYTES = 16 * 2 ** 20;

/** How an API server is met. */
export interface ApiWay {
  /** https://10.0.0.2:6443 */
  readonly server: string;
  readonly ca: string;
  readonly pair?: { readonly certPem: string; readonly keyPem: string };
  readonly token?: string;
}

/** An answer. */
export interface ApiAnswer {
  readonly status: number;
  readonly body: string;
}

/** The API server answers otherwise than was asked for, or with too much. */
export class ApiAskError extends EdgeError {
  override readonly name = "ApiAskError";
  readonly code = "API_ASK";
}

/** Asks. @throws {Error} when nobody answers. */
export async function askApi(way: ApiWay, method: "GET" | "POST", path: string, body?: string): Promise<ApiAnswer> {
  const { server, ca, pair, token } = way;
  return sendBounded(`${server}${path}`, {
    method,
    tls: { ca, ...(pair === undefined ? {} : { cert: pair.certPem, key: pair.keyPem }) },
    headers: {
      Accept: "application/json",
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body }),
  });
}

/** Sends one request and reads its answer, within the bounds. */
export async function sendBounded(url: string, init: BunFetchRequestInit): Promise<ApiAnswer> {
  const response = await fetch(url, {
    ...init,
    redirect: "error",
    keepalive: false,
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  return { status: response.status, body: await boundedText(response, new URL(url).host) };
}

/** The object that is asked for. @throws {Error} when there is another answer than 200. */
export async function getObject<T>(way: ApiWay, path: string): Promise<T> {
  const { status, body } = await askApi(way, "GET", path);
  if (status !== 200) throw new ApiAskError(`${new URL(way.server).host} answers ${status}`);
  return objectOf<T>(body, way.server);
}

/** The same, undefined where there is none. */
export async function findObject<T>(way: ApiWay, path: string): Promise<T | undefined> {
  const { status, body } = await askApi(way, "GET", path);
  if (status === 404) return undefined;
  if (status !== 200) throw new ApiAskError(`${new URL(way.server).host} answers ${status}`);
  return objectOf<T>(body, way.server);
}

function objectOf<T>(body: string, server: string): T {
  try {
    return JSON.parse(body) as T;
  } catch {
    throw new ApiAskError(`${new URL(server).host} answers something that is no JSON`);
  }
}

async function boundedText(response: Response, host: string): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    size += part.byteLength;
    if (size > MAX_BYTES) throw new ApiAskError(`${host} answers more than ${MAX_BYTES >> 20} MiB`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}
