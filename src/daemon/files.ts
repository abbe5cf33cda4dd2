/**
 * Files that may be replaced while we run, looked at every two seconds: who
 * reads them at each request follows anyway, the listeners must be told.
 */

import type { Ground } from "./ground.ts";
import type { Listeners } from "./front.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

/** A renewed CA's first client is turned away for at most this long, and asks again. */
const LOOK_EVERY_MS = 2_000;

/** Builds it. */
export function filesPart(ground: Ground, { link, ownCredential }: Uplink, listeners: Listeners): Part {
  const { clock, conditions, config } = ground;
  for (const file of config.followed)
    conditions.watch("FileUnusable", () => unusable(file.problem), file.what.slice(0, 128));
  const credentialText = () => JSON.stringify(ownCredential());
  let held = { clientCaPem: config.clientCaPem(), caPem: config.upstream.caPem(), credential: credentialText() };
  const look = () => {
    const now = { clientCaPem: config.clientCaPem(), caPem: config.upstream.caPem(), credential: credentialText() };
    if (now.clientCaPem !== held.clientCaPem) listeners.trust(now.clientCaPem);
    // What was refused or not believed a moment ago may be good now.
    if (now.caPem !== held.caPem || now.credential !== held.credential) link.suspect();
    held = now;
  };
  let cancel = () => {};
  const schedule = () => {
    cancel = clock.after(LOOK_EVERY_MS, () => {
      look();
      schedule();
    });
  };
  return { name: "files", start: schedule, drain: () => cancel() };
}

function unusable(problem: string | undefined) {
  if (problem === undefined) return undefined;
  return {
    reason: "NewContentUnusable",
    message: `${problem}; what was read before stands`,
    next: "Mend the file: it is read again within two seconds",
  };
}
