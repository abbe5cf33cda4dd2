/**
 * What `holdfast status -o json` prints: a shape that programs may rely on.
 */

import * as v from "valibot";
import { coverageSchema } from "./coverage-report.ts";

const scopeSchema = v.object({
  principal: v.string(),
  group: v.string(),
  version: v.string(),
  resource: v.string(),
  namespace: v.string(),
  fieldSelector: v.string(),
  labelSelector: v.string(),
  representation: v.string(),
  state: v.picklist(["unseen", "listing", "live", "stale"]),
  resourceVersion: v.string(),
  items: v.number(),
  bytes: v.number(),
  watchers: v.number(),
  lastContactMs: v.number(),
  note: v.string(),
  /** The principal whose watch this scope is cut out of now; absent when it has its own, or none. */
  sharesWatchOf: v.optional(v.string()),
});

/** The schema of a status report. */
export const statusReportSchema = v.object({
  apiVersion: v.literal("holdfast.dev/v1alpha1"),
  kind: v.literal("Status"),
  version: v.string(),
  /** The daemon's process. */
  pid: v.optional(v.number()),
  startedAtMs: v.number(),
  nowMs: v.number(),
  link: v.object({
    state: v.picklist(["starting", "online", "offline"]),
    sinceMs: v.number(),
    /** The API server answers again; this node comes back in its fleet's turn, in this many ms. */
    turnInMs: v.optional(v.number()),
    servers: v.array(
      v.object({
        url: v.string(),
        state: v.optional(v.picklist(["untried", "answering", "failing"])),
        rttMs: v.optional(v.number()),
        lastContactMs: v.optional(v.number()),
        lastError: v.optional(v.string()),
      }),
    ),
  }),
  scopes: v.array(scopeSchema),
  store: v.object({
    mode: v.picklist(["disk", "memory"]),
    reason: v.string(),
    path: v.string(),
    sizeBytes: v.number(),
    scopes: v.number(),
    objects: v.number(),
    responses: v.number(),
    quarantined: v.number(),
    commits: v.number(),
    rowsWritten: v.number(),
    sealing: v.picklist(["credential", "file", "memory"]),
  }),
  certificates: v.array(
    v.object({
      name: v.string(),
      subject: v.string(),
      notAfterMs: v.number(),
      /** From when on it is renewed; absent where somebody else renews it. */
      renewAtMs: v.optional(v.number()),
      /** Who renews it. */
      renewedBy: v.optional(v.string()),
    }),
  ),
  /** How long this node survives without its link. */
  horizon: v.optional(
    v.object({
      /** Absent: nothing of it ends. */
      endsMs: v.optional(v.number()),
      /** What ends first. */
      because: v.string(),
      /** Everything that ends, and what happens at that. */
      ends: v.array(v.object({ what: v.string(), endsMs: v.number(), effect: v.string() })),
    }),
  ),
  /** Pods that kubelet starts here come to the API server through us, by this address; absent where they go their own way. */
  podAccess: v.optional(v.object({ server: v.string(), listen: v.string() })),
  /** Which pods would come back; absent where nobody could look in time. */
  coverage: v.optional(coverageSchema),
  /** The tunnel; absent where there is to be none. */
  tunnel: v.optional(
    v.object({
      state: v.picklist(["connecting", "open"]),
      /** It leads to, or the last one tried. */
      gateway: v.string(),
      sinceMs: v.number(),
      /** Where the API server dials this node: ADDRESS:PORT. */
      place: v.optional(v.string()),
      /** Connections to kubelet under way. */
      streams: v.number(),
      roundTripMs: v.optional(v.number()),
      /** Why it does not stand. */
      problem: v.optional(v.string()),
    }),
  ),
  requests: v.object({ forwarded: v.number(), servedFromCache: v.number(), refusedWrites: v.number() }),
  /** Bytes of lists and events that came from another scope instead of the API server since start, uncompressed. */
  sharedBytes: v.optional(v.number()),
  /** What is answered here until the link is back, and what was. */
  offline: v.optional(
    v.object({
      /** Objects whose status kubelet wrote while cut. */
      overlays: v.number(),
      /** Events that wait for the link. */
      eventsWaiting: v.number(),
      /** Events that gave way, grew too old or were refused, since start. */
      eventsDropped: v.number(),
      /** Service-account tokens handed out after their own expiry, since start. */
      expiredTokensServed: v.number(),
      /** Labels, annotations and conditions that node agents wrote while cut: waiting, gone up and dropped since start. */
      agentChanges: v.optional(v.object({ waiting: v.number(), sent: v.number(), dropped: v.number() })),
    }),
  ),
  conditions: v.array(
    v.object({
      type: v.string(),
      reason: v.string(),
      message: v.string(),
      sinceMs: v.optional(v.number()),
      /** Which of several it is about; "" or absent where there is one alone. */
      subject: v.optional(v.string()),
      /** The next command or step. */
      next: v.optional(v.string()),
    }),
  ),
});

/** A status report; times in ms since the epoch. */
export type StatusReport = v.InferOutput<typeof statusReportSchema>;
