/**
 * The CAs by which the API server knows clients: what it publishes of itself,
 * or a file. Looked at once a minute; what cannot be read leaves the former
 * standing.
 */

import { readFileSync } from "node:fs";
import type { V1ConfigMap } from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { certificateBlocks } from "../certificates/pem.ts";
import { describe, pause } from "../cluster/follow.ts";
import { sendTo, type KubernetesTarget } from "../cluster/kubernetes.ts";
import { reads } from "../kube/wire.ts";

const PATH = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const LOOK_EVERY_MS = 60_000;
const RETRY_MS = 1_000;
const TIMEOUT_MS = 10_000;

const schema = reads<V1ConfigMap>()(v.object({ data: v.nullish(v.record(v.string(), v.string()), {}) }));

/** Follows them. */
export class ClientAuthority {
  #pem = "";

  constructor(
    private readonly options: {
      readonly target: KubernetesTarget;
      readonly userAgent: string;
      readonly file: string | undefined;
      readonly clock: Clock;
      readonly log: Log;
      readonly signal: AbortSignal;
    },
  ) {}

  /** As they are now, PEM; "" while unknown, and then nobody is believed. */
  get pem(): string {
    return this.#pem;
  }

  /** Reads them once; failing that, `keep` goes on trying. */
  async start(): Promise<void> {
    await this.#look();
  }

  /** Runs until the signal. @param onChange is called when they have become others. */
  async keep(onChange: () => void): Promise<void> {
    const { clock, signal } = this.options;
    while (!signal.aborted) {
      await pause(clock, this.#pem === "" ? RETRY_MS : LOOK_EVERY_MS, signal);
      if (!signal.aborted && (await this.#look())) onChange();
    }
  }

  /** @returns whether they have become others. */
  async #look(): Promise<boolean> {
    try {
      const read = await this.#read();
      if (certificateBlocks(read).length === 0) throw new Error("no certificate in it");
      if (read === this.#pem) return false;
      this.#pem = read;
      return true;
    } catch (error) {
      this.options.log.warn("cannot read the client CA", { reason: describe(error) });
      return false;
    }
  }

  async #read(): Promise<string> {
    const { file } = this.options;
    if (file !== undefined) return readFileSync(file, "utf8");
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const response = await sendTo(this.options, { method: "GET", path: PATH, signal });
    return v.parse(schema, await response.json()).data?.["client-ca-file"] ?? "";
  }
}
