/**
 * The technician's page, where the configuration asks for it: over TLS with the
 * certificate that local clients are shown, loaded only then.
 */

import type { Clock } from "../base/clock.ts";
import type { PageFacts } from "../health/page-view.ts";
import type { StatusReport } from "../health/status-report.ts";
import { networkChecks } from "../machine/checks/network.ts";
import { diskWear } from "../machine/disk-wear.ts";
import { Outages } from "../node/outages.ts";
import type { Store } from "../store/contract.ts";
import type { Coverage } from "./coverage.ts";
import type { Front, FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import { readinessOf } from "./telling.ts";

const PIN_NAME = "page/pin";
const PIN_DIGITS = 8;
/** Looking at the uplink opens connections: not for every look at the page. */
const UPLINK_FRESH_MS = 30_000;

/** The PIN: its keyed hash is kept, itself nowhere. */
export class PagePin {
  constructor(private readonly store: Pick<Store, "getValue" | "putValue" | "keyedHash">) {}

  /** Makes another one; the former is void. */
  renew(): string {
    const number = crypto
      .getRandomValues(new Uint32Array(2))
      .reduce((sum, part) => (sum * 4_294_967_296 + part) % 1e15, 0);
    const pin = String(number % 10 ** PIN_DIGITS).padStart(PIN_DIGITS, "0");
    this.store.putValue(PIN_NAME, Buffer.from(this.store.keyedHash(`page ${pin}`)), { isSecret: true });
    return pin;
  }

  /** Whether it is this one; never while none was made. */
  is(pin: string): boolean {
    const kept = this.store.getValue(PIN_NAME);
    return kept !== undefined && Buffer.from(kept).toString() === this.store.keyedHash(`page ${pin}`);
  }
}

/** Builds it; outages are remembered whether or not there is a page. */
export function buildPage(
  ground: Ground,
  { uplink }: FrontGround,
  front: Front,
  {
    status,
    coverage,
    pin,
  }: { readonly status: () => StatusReport; readonly coverage: Coverage; readonly pin: PagePin },
): Part {
  const { config, clock, log, store, machineRoot: root = "/" } = ground;
  const outages = new Outages(store, clock);
  uplink.link.onChange((isOnline) => outages.changed(isOnline));
  const uplinkNow = remembered(clock, () => networkChecks(config.upstream));
  const facts = async (): Promise<PageFacts> => {
    const [layers] = await Promise.all([uplinkNow(), coverage.now().catch(() => undefined)]);
    const report = status();
    return {
      report,
      light: lightOf(report),
      outages: outages.all(),
      uplink: layers,
      disk: diskWear({ root }, config.stateDir),
    };
  };
  let server: { stop(): void } | undefined;
  return {
    name: "page",
    async start() {
      const serving = front.listeners.serving;
      if (config.page === undefined || serving === undefined) return;
      const { host, port, hosts } = config.page;
      const { servePage } = await import("../health/page.ts");
      const app = {
        hosts: [host, ...hosts],
        facts,
        isPin: (given: string) => pin.is(given),
        nowMs: () => clock.monotonicMs(),
      };
      server = servePage({ host, port, ...serving }, app);
      // The node goes on without it.
      if (server === undefined)
        log.warn("the page is not served: another program has the port, or no interface the address");
    },
    stop: () => server?.stop(),
  };
}

/** Red: something would be lost now. Yellow: cut off, or something to look at. */
function lightOf(report: StatusReport): PageFacts["light"] {
  const { status, reason } = readinessOf(report);
  if (status === "False" && (reason === "PodsNotCovered" || reason === "StoreInMemory")) return "red";
  return status === "True" && report.link.state === "online" ? "green" : "yellow";
}

function remembered<T>(clock: Clock, look: () => Promise<T>): () => Promise<T> {
  let last: { readonly atMs: number; readonly found: Promise<T> } | undefined;
  return () => {
    if (last === undefined || clock.monotonicMs() - last.atMs > UPLINK_FRESH_MS)
      last = { atMs: clock.monotonicMs(), found: look() };
    return last.found;
  };
}
