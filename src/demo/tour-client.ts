/**
 * The tour's client: plain HTTPS requests and a watch, as any program makes them.
 */

import * as https from "node:https";

/** Where, whom to trust, and as whom. */
export interface TourClientOptions {
  readonly port: number;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A whole answer; `items` of a list, `reason` of a Status. */
export interface TourReply {
  readonly status: number;
  readonly body: Buffer;
  readonly items: number;
  readonly reason: string;
}

/** One event, reduced to what the tour tells. */
export interface TourEvent {
  readonly type: string;
  readonly name: string;
  readonly resourceVersion: string;
}

/** An open watch. */
export class TourWatch {
  readonly events: TourEvent[] = [];
  readonly ended: Promise<void>;
  isOpen = true;
  #text = "";
  #waiting = new Set<() => void>();
  #end: () => void;

  constructor(readonly status: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
  }

  /** The resourceVersion to resume at. */
  get lastResourceVersion(): string {
    return this.events.at(-1)?.resourceVersion ?? "";
  }

  /** Takes bytes as they come. */
  take(text: string): void {
    this.#text += text;
    for (let end = this.#text.indexOf("\n"); end >= 0; end = this.#text.indexOf("\n")) {
      const { type, object } = JSON.parse(this.#text.slice(0, end)) as {
        type: string;
        object: { metadata: { name?: string; resourceVersion: string } };
      };
      this.#text = this.#text.slice(end + 1);
      this.events.push({ type, name: object.metadata.name ?? "", resourceVersion: object.metadata.resourceVersion });
    }
    for (const check of this.#waiting) check();
  }

  /** The stream is over. */
  close(): void {
    this.isOpen = false;
    this.#end();
  }

  /** Resolves when a condition on the events holds; rejects when it does not in time. */
  async until(isTrue: (events: readonly TourEvent[]) => boolean, timeoutMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const check = () => isTrue(this.events) && resolve();
    const timer = setTimeout(() => reject(new Error("not in time")), timeoutMs);
    this.#waiting.add(check);
    check();
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(check);
    }
  }

  /** Whether an event came in time. */
  async sees(type: string, name: string, timeoutMs: number): Promise<boolean> {
    return this.until((events) => events.some((event) => event.type === type && event.name === name), timeoutMs).then(
      () => true,
      () => false,
    );
  }
}

/** Requests to Holdfast. */
export class TourClient {
  constructor(private readonly options: TourClientOptions) {}

  /** A GET. */
  get(path: string): Promise<TourReply> {
    return this.request("GET", path);
  }

  /** A GET without any credential. */
  anonymous(path: string): Promise<TourReply> {
    const { port, ca } = this.options;
    return send({ method: "GET", path, host: "127.0.0.1", port, ca, agent: false });
  }

  /** Any request. */
  request(method: string, path: string): Promise<TourReply> {
    return send({
      method,
      path,
      host: "127.0.0.1",
      ...this.options,
      agent: false,
      headers: { Accept: "application/json" },
    });
  }

  /** Opens a watch; resolves with its head. */
  watch(path: string): Promise<TourWatch> {
    const { promise, resolve, reject } = Promise.withResolvers<TourWatch>();
    const request = https.get(
      { path, host: "127.0.0.1", ...this.options, agent: false, headers: { Accept: "application/json" } },
      (response) => {
        const watch = new TourWatch(response.statusCode ?? 0);
        response.setEncoding("utf8");
        response.on("data", (text: string) => watch.take(text));
        for (const event of ["end", "error", "aborted", "close"]) response.on(event, () => watch.close());
        resolve(watch);
      },
    );
    request.on("error", reject);
    return promise;
  }

  /** A kubeconfig for kubectl. */
  kubeconfig(): string {
    const { port, ca, cert, key } = this.options;
    const data = (text: string) => Buffer.from(text).toString("base64");
    return `${JSON.stringify(
      {
        apiVersion: "v1",
        kind: "Config",
        clusters: [
          {
            name: "holdfast",
            cluster: { server: `https://127.0.0.1:${port}`, "certificate-authority-data": data(ca) },
          },
        ],
        users: [{ name: "admin", user: { "client-certificate-data": data(cert), "client-key-data": data(key) } }],
        contexts: [{ name: "holdfast", context: { cluster: "holdfast", user: "admin" } }],
        "current-context": "holdfast",
      },
      undefined,
      2,
    )}\n`;
  }
}

function send(options: https.RequestOptions): Promise<TourReply> {
  const { promise, resolve, reject } = Promise.withResolvers<TourReply>();
  const request = https.request(options, (response) => {
    const parts: Buffer[] = [];
    response.on("data", (part: Buffer) => parts.push(part));
    response.on("error", reject);
    response.on("end", () => {
      const body = Buffer.concat(parts);
      const parsed = JSON.parse(body.toString("utf8")) as { items?: unknown[]; reason?: string };
      resolve({
        status: response.statusCode ?? 0,
        body,
        items: parsed.items?.length ?? 0,
        reason: parsed.reason ?? "",
      });
    });
  });
  request.on("error", reject);
  request.end();
  return promise;
}
