/**
 * Which pods would come back, as it was last looked: when somebody asks, and
 * now and then for the metrics.
 *
 * A look reads every pod's copies and asks the container runtime, so it is made
 * at most every few seconds, however many ask, and never for a request of
 * kubelet's. A runtime that hangs costs the look, nothing else.
 */

import type { CoverageReport } from "../health/coverage-report.ts";
import { coverageOn } from "../machine/coverage.ts";
import { keptPods, type CoverageParts } from "../node/coverage.ts";
import { nodeOf } from "../node/own-node.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";

/** A look holds this long for whoever asks. */
const FRESH_MS = 5_000;
/** Nobody asks: for the metrics and the condition. The first one once kubelet has had time to read. */
const FIRST_MS = 60_000;
const EVERY_MS = 600_000;

/** Looks, and remembers. */
export class Coverage implements Part {
  readonly name = "coverage";
  #last: CoverageReport | undefined;
  #lookedAtMs = -Infinity;
  #looking: Promise<CoverageReport | undefined> | undefined;
  #cancel = () => {};

  constructor(
    private readonly ground: Pick<Ground, "config" | "clock" | "store" | "machineRoot">,
    private readonly parts: Pick<CoverageParts, "scopes" | "tokens">,
  ) {}

  /** As it was last looked; undefined before. */
  get last(): CoverageReport | undefined {
    return this.#last;
  }

  start(): void {
    this.#schedule(FIRST_MS);
  }

  drain(): void {
    this.#cancel();
  }

  /** Looks, or says what a look of some seconds ago said; undefined where our own credential is no node's. */
  async now(): Promise<CoverageReport | undefined> {
    const { clock } = this.ground;
    if (this.#last !== undefined && clock.monotonicMs() - this.#lookedAtMs < FRESH_MS) return this.#last;
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async #look(): Promise<CoverageReport | undefined> {
    const { clock, config, store, machineRoot: root = "/" } = this.ground;
    const node = nodeOf(config.upstream.credential);
    if (node === undefined) return undefined;
    const kept = keptPods({ ...this.parts, store, node });
    this.#last = await coverageOn({ root }, kept, clock.nowMs());
    this.#lookedAtMs = clock.monotonicMs();
    return this.#last;
  }

  #schedule(ms: number): void {
    this.#cancel = this.ground.clock.after(ms, () => {
      void this.now().catch(() => undefined);
      this.#schedule(EVERY_MS);
    });
  }
}
