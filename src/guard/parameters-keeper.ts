/**
 * Puts the ConfigMap with the parameters back when it has been gone for a while.
 *
 * Without it the policies on nodes are asleep, and nothing tells: a cut node
 * would be evicted hours after somebody tidied up. So the leader creates it
 * anew as it last saw it, or with the defaults if it never did. Whoever wants to
 * give protection up takes the opt-in off nodes, or deletes the bindings of the
 * policies; an uninstallation takes the guard away before the time is over.
 */

import type { V1ConfigMap } from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { sent } from "../kube/wire.ts";
import { ApiError, type ClusterApi } from "../cluster/api.ts";
import type { LiveView } from "./live-view.ts";
import { PARAMETERS_NAME } from "./names.ts";
import { DEFAULT_PARAMETERS } from "./parameters.ts";

/** What keeps what. */
export interface ParametersKeeperOptions {
  readonly api: ClusterApi;
  readonly view: Pick<LiveView, "isSynced" | "hasParameters" | "parametersObject">;
  readonly clock: Clock;
  readonly log: Log;
  readonly namespace: string;
}

/** As the manifests render it. */
const DEFAULT_OBJECT = {
  labels: { "app.kubernetes.io/name": "holdfast", "app.kubernetes.io/component": "guard" },
  annotations: {},
  data: DEFAULT_PARAMETERS,
};
const dataSchema = v.record(v.string(), v.string());
/** Whoever replaces it deletes it first. */
const GONE_FOR_MS = 30_000;

/** The keeper; `round` is one look. */
export class ParametersKeeper {
  #goneSinceMs: number | undefined;

  constructor(private readonly options: ParametersKeeperOptions) {}

  /** @throws {ApiError} when it cannot be created; it is tried again the next time. */
  async round(isLeader: boolean): Promise<void> {
    const { api, view, clock, log, namespace } = this.options;
    if (!view.isSynced || view.hasParameters) {
      this.#goneSinceMs = undefined;
      return;
    }
    const nowMs = clock.monotonicMs();
    this.#goneSinceMs ??= nowMs;
    if (!isLeader || nowMs - this.#goneSinceMs < GONE_FOR_MS) return;
    const { labels, annotations, data } = view.parametersObject ?? DEFAULT_OBJECT;
    const parsed = v.safeParse(dataSchema, data);
    try {
      const object = sent<V1ConfigMap>()({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: PARAMETERS_NAME, namespace, labels, annotations },
        data: parsed.success ? parsed.output : DEFAULT_OBJECT.data,
      });
      await api.createConfigMap(namespace, object);
    } catch (error) {
      // Somebody was faster; the view will show it.
      if (!(error instanceof ApiError && error.isConflict)) throw error;
      return;
    }
    this.#goneSinceMs = undefined;
    log.warn("the ConfigMap with the parameters was gone and is put back", {
      name: PARAMETERS_NAME,
      namespace,
      from: view.parametersObject === undefined ? "defaults" : "as it was",
    });
  }
}
