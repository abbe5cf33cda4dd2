/**
 * Writes into a store without end, until it is killed.
 *
 * Every object's text says its resourceVersion, and object N of a scope moves
 * in lockstep: event number R rewrites object R modulo 50. So whatever is
 * found later can be worked out from the scope's resourceVersion alone.
 *
 *   kill-writer.ts STATE_DIR
 */

import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { openStore } from "../../src/store/store.ts";
import { OBJECTS, PODS, SECRETS, SHAPE, objectAt } from "./support.ts";

const store = openStore({ stateDir: process.argv[2]!, clock: systemClock, log: silentLog, maxBytes: 2 ** 28 });
process.stdout.write("open\n");
for (let round = 0; ; round++) {
  for (const identity of [PODS, SECRETS]) {
    const copy = store.openCopy(identity, Date.now());
    const { listed } = copy;
    let at = Math.max(OBJECTS, Number(listed?.resourceVersion ?? 0));
    if (listed === undefined || round % 5 === 0) {
      // A list that is ahead of the rows, as after a long cut.
      at += listed === undefined ? 0 : 170;
      const writer = copy.beginList();
      for (let n = 0; n < OBJECTS; n++) writer.add(objectAt(n, at));
      writer.commit(
        { shape: SHAPE, contentType: "application/json", resourceVersion: String(at), nowMs: Date.now() },
        () => {},
      );
    }
    for (let n = 0; n < 230; n++) {
      at++;
      copy.put(objectAt(at % OBJECTS, at), String(at), Date.now());
      if (n % 90 === 0) store.flush();
    }
    store.putResponse(
      { principal: "p", target: `/${identity.resource}`, accept: "a" },
      { status: 200, headers: {}, body: Buffer.from(`at ${at} `.repeat(50)), storedAtMs: at },
      { isSecret: identity === SECRETS },
    );
    store.flush();
  }
  await Bun.sleep(0);
}
