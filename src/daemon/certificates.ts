/**
 * Certificates are renewed while we run: what is due is looked for once a
 * minute, or at its moment where that comes sooner.
 */

import { formatDuration } from "../base/units.ts";
import type { Listeners } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

/** A clock that jumps, by NTP or by hand, is noticed within this time. */
const LOOK_EVERY_MS = 60_000;

/** Builds it. */
export function certificatesPart(ground: Ground, { link }: Uplink, listeners: Listeners): Part {
  const { clock, conditions, renewals } = ground;
  conditions.watch("ClockBehind", () => clockFinding(renewals.clockBehindOf, clock.nowMs()));
  const look = () => {
    // The link stands by TLS: the API server's certificate holds at this time.
    if (link.isOnline()) renewals.trust();
    if (listeners.local?.renewDue() === true) listeners.renewed();
  };
  let cancel = () => {};
  const schedule = () => {
    cancel = clock.after(LOOK_EVERY_MS, () => {
      look();
      schedule();
    });
  };
  link.onChange((isOnline) => isOnline && renewals.trust());
  return { name: "certificates", start: schedule, drain: () => cancel() };
}

function clockFinding(trustedAtMs: number | undefined, nowMs: number) {
  if (trustedAtMs === undefined) return undefined;
  return {
    reason: "BeforeLastTrustedTime",
    message: `The clock is ${formatDuration(trustedAtMs - nowMs)} behind the last time that could be trusted: certificates are judged by that`,
    next: "Set it: timedatectl set-time, or look after NTP: timedatectl timesync-status",
  };
}
