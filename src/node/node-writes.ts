/**
 * Writes that are answered while the API server cannot be asked: one table.
 *
 *   kubelet's lease               echoed, not stored
 *   own node's, own pods' status  laid over the kept object: status-writes.ts
 *   events                        201, a bounded ring, sent up at the return: event-writes.ts
 *   service-account token         the kept one, for pods in the node's list: token-writes.ts
 *   own node POST                 409 when it is known
 *   token and access reviews      a decision that still stands
 *   agents' labels, annotations,  laid over the kept object, sent up at the return:
 *   conditions of own objects     agent-writes.ts
 *
 * Everything else is refused by the forwarder. Online each of them goes up as
 * it came, and what must be known for a cut is learned from the answer.
 *
 * Only the node's own identity is answered; events and reviews are anybody's
 * whom the API server has allowed the same before.
 */

import { mediaType } from "../kube/representation.ts";
import type { Caller } from "../callers/identify.ts";
import type { ReviewMemory } from "../callers/review-memory.ts";
import type { Exchange } from "../front/exchange.ts";
import type { AnswerTap, Fallback, Forwarder } from "../front/forward.ts";
import { sentBody } from "../front/sent-body.ts";
import type { NodeWrite } from "../front/node-write.ts";
import type { RequestInfo } from "../front/request-info.ts";
import { refusalWords } from "../front/words.ts";
import { agentRow, type AgentParts } from "./agent-writes.ts";
import type { EventRing } from "./event-ring.ts";
import { eventRow } from "./event-writes.ts";
import { keptObject } from "./kept-object.ts";
import type { NodeLease } from "./node-lease.ts";
import type { Registration } from "./registration.ts";
import { statusRow } from "./status-writes.ts";
import type { TokenVault } from "./token-vault.ts";
import { tokenRow } from "./token-writes.ts";
import {
  alreadyExists,
  answerWith,
  LearningTap,
  requireObject,
  type Answer,
  type Write,
  type WriteRow,
} from "./write.ts";

/** What these answers are made of. */
export interface NodeWriteParts extends AgentParts {
  readonly forwarder: Forwarder;
  readonly events: EventRing;
  readonly tokens: TokenVault;
  readonly reviews: ReviewMemory;
  readonly lease: NodeLease;
  readonly registration: Registration;
}

/** Answers them. */
export class NodeWrites {
  constructor(private readonly parts: NodeWriteParts) {}

  /** Forwards the write; if there is nobody to forward it to, answers it. @param passing sees the answer too. */
  async serve(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
    kind: NodeWrite,
    passing: AnswerTap,
  ): Promise<void> {
    const sent = await sentBody(exchange, caller.nodeName !== undefined);
    const body = sent.body ?? new Uint8Array(0);
    const words = () => refusalWords(info);
    if (!(body instanceof Uint8Array))
      return this.parts.forwarder.forward(exchange, caller, { sent, tap: passing, words });
    const contentType = mediaType(exchange.header("content-type") ?? "");
    const write: Write = { exchange, info, caller, body, contentType };
    if (kind === "lease" && info.verb === "update" && this.parts.lease.isEarly({ contentType, body }))
      return answerWith(exchange, 200, this.parts.lease.echo({ contentType, body }));
    const row = this.#row(kind, write);
    const isLearning = row.learn !== undefined || row.heard !== undefined;
    return this.parts.forwarder.forward(exchange, caller, {
      sent,
      ...(row.accept === undefined ? {} : { accept: row.accept }),
      words,
      isHeartbeat: kind === "lease" && info.verb === "update",
      ...(row.fallback === undefined ? {} : { fallback: row.fallback }),
      tap: isLearning ? new LearningTap(passing, row) : passing,
    });
  }

  #row(kind: NodeWrite, write: Write): WriteRow {
    switch (kind) {
      case "lease":
        return this.#leaseRow(write);
      case "status":
        return statusRow(this.parts, write);
      case "event":
        return eventRow(this.parts, write);
      case "token":
        return tokenRow(this.parts, write);
      case "node":
        return { fallback: this.#nodeFallback(write) };
      case "review":
        return this.#reviewRow(write);
      case "agent":
        return agentRow(this.parts, write);
    }
  }

  #leaseRow({ exchange, info, caller, body, contentType }: Write): WriteRow {
    const { lease } = this.parts;
    const isUpdate = info.verb === "update";
    if (isUpdate) lease.goesUp();
    const echo = () => {
      requireObject("lease", { contentType, body });
      answerWith(exchange, 200, lease.echo({ contentType, body }));
    };
    const find = () => {
      if (isUpdate) return echo;
      const kept = lease.kept(caller.nodeName!);
      if (kept === undefined) return undefined;
      return () => {
        if (info.verb === "create") throw alreadyExists("leases.coordination.k8s.io", caller.nodeName!);
        answerWith(exchange, 200, kept);
      };
    };
    const learn = (answer: Answer) => lease.answered(caller.nodeName!, answer, isUpdate);
    // One renewal that fails is kubelet's to repeat.
    return { fallback: { givesWay: "storage", find }, learn };
  }

  #nodeFallback({ caller, contentType, body }: Write): Fallback {
    const node = { resource: "nodes", namespace: "", name: caller.nodeName! };
    return {
      givesWay: "storage",
      find: () =>
        keptObject(this.parts.scopes, caller.principal, node) === undefined
          ? undefined
          : () => {
              this.parts.registration.answered({ contentType, body });
              throw alreadyExists("nodes", caller.nodeName!);
            },
    };
  }

  #reviewRow({ exchange, info, caller, body, contentType }: Write): WriteRow {
    const { reviews } = this.parts;
    const question = {
      principal: caller.principal,
      resource: info.resource,
      path: info.path,
      accept: exchange.header("accept") ?? "",
      contentType,
      body,
    };
    return {
      fallback: {
        find: () => {
          const decision = reviews.recall(question);
          return decision === undefined ? undefined : () => answerWith(exchange, 201, decision);
        },
      },
      learn: (answer) => reviews.remember(question, answer),
    };
  }
}
