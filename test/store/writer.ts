/**
 * Writes to a store as fast as it can until it is killed; says "ready" once.
 */

import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { openStore } from "../../src/store/store.ts";

const store = openStore({ stateDir: process.argv[2]!, clock: systemClock, log: silentLog, maxBytes: 1e9 });
const { id } = store.openScope(
  {
    principal: "p",
    group: "",
    version: "v1",
    resource: "configmaps",
    namespace: "shop",
    fieldSelector: "",
    labelSelector: "",
    representation: "json",
  },
  0,
);
let revision = Number(store.listedState(id)?.resourceVersion ?? "100");

function item(name: string, resourceVersion: number) {
  const text = JSON.stringify({
    metadata: { name, namespace: "shop", uid: `uid-${name}`, resourceVersion: String(resourceVersion) },
    data: { value: `value of ${name} at ${resourceVersion}` },
  });
  return {
    meta: { namespace: "shop", name, uid: `uid-${name}`, resourceVersion: String(resourceVersion) },
    bytes: Buffer.from(text),
  };
}

function listAll(): void {
  const writer = store.beginList(id);
  revision += 200;
  for (let i = 0; i < 150; i++) writer.add(item(`a-${i}`, revision - 150 + i));
  writer.commit(
    {
      shape: { listKind: "ConfigMapList", apiVersion: "v1", isBare: true },
      contentType: "application/json",
      resourceVersion: String(revision),
      nowMs: Date.now(),
    },
    () => {},
  );
}

listAll();
process.stdout.write("ready\n");
for (;;) {
  for (let i = 0; i < 400; i++) {
    revision++;
    const one = item(`a-${Math.floor(Math.random() * 200)}`, revision);
    if (Math.random() < 0.3) store.deleteObject(id, one, String(revision), Date.now());
    else store.putObject(id, one, String(revision), Date.now());
    if (i % 20 === 0) await Bun.sleep(0);
  }
  listAll();
}
