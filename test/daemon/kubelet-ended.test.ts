import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { silentLog } from "../../src/base/log.ts";
import { kubeletEndedPart } from "../../src/daemon/kubelet-ended.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { kubeletKubeconfig } from "../../src/machine/kubelet-files.ts";
import {
  BYPASS_DROP_IN,
  KUBELET_ENDED_FILE,
  KUBELET_KUBECONFIG,
  KUBELET_SERVING_DROP_IN,
} from "../../src/machine/places.ts";
import { ManualClock } from "../support/model.ts";

const PAIR = "/var/lib/kubelet/pki/kubelet-client-current.pem";
const OWN = `users: [{name: u, user: {client-certificate: ${PAIR}, client-key: ${PAIR}}}]
contexts: [{name: x, context: {user: u}}]
current-context: x
`;
const cluster = mintCluster("kubernetes");
const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function adopted() {
  const root = mkdtempSync(join(tmpdir(), "holdfast-test-ended-"));
  folders.push(root);
  const clock = new ManualClock();
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const nowMs = Date.now();
  const pairUntil = (notAfterMs: number) => {
    const pair = cluster.clientCertificate("system:node:edge1", ["system:nodes"], {
      notBeforeMs: nowMs - 7_200_000,
      notAfterMs,
    });
    write(PAIR, `${pair.cert}${pair.key}`);
  };
  write(KUBELET_KUBECONFIG, kubeletKubeconfig(OWN, "https://127.0.0.1:10268", "/var/lib/holdfast/pki/local-ca.crt"));
  const file = join(root, KUBELET_ENDED_FILE);
  const said = () => (existsSync(file) ? readFileSync(file, "utf8") : undefined);
  mkdirSync(dirname(file), { recursive: true });
  const renewals = { nowMs: () => nowMs } as never;
  const part = kubeletEndedPart({ clock, log: silentLog, machineRoot: root, renewals });
  const looks = () => clock.pass(30_000);
  return { root, write, pairUntil, said, part, looks, nowMs };
}

describe("how kubelet is to start", () => {
  test("is said while its certificate has ended, and not after a new one has come", async () => {
    const it = adopted();
    it.pairUntil(it.nowMs + 3_600_000);
    await it.part.start!();
    expect(it.said()).toBeUndefined();
    it.pairUntil(it.nowMs - 1_000);
    await it.looks();
    expect(it.said()).toBe(`KUBELET_KUBECONFIG_ARGS=--kubeconfig=${KUBELET_KUBECONFIG} --rotate-certificates=false\n`);
    it.write(
      KUBELET_SERVING_DROP_IN,
      `[Service]\nEnvironment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=${KUBELET_KUBECONFIG} --tls-cert-file=/x"\n`,
    );
    await it.looks();
    expect(it.said()).toContain("--tls-cert-file=/x --rotate-certificates=false");
    it.pairUntil(it.nowMs + 3_600_000);
    await it.looks();
    expect(it.said()).toBeUndefined();
    await it.part.stop!();
  });

  test("is nobody's to say while the bypass leads past us, nor on a machine that was not adopted", async () => {
    const it = adopted();
    it.pairUntil(it.nowMs - 1_000);
    it.write(BYPASS_DROP_IN, "[Service]\n");
    await it.part.start!();
    expect(it.said()).toBeUndefined();
    rmSync(join(it.root, BYPASS_DROP_IN));
    await it.looks();
    expect(it.said()).toBeDefined();
    rmSync(join(it.root, KUBELET_KUBECONFIG));
    await it.looks();
    expect(it.said()).toBeUndefined();
    await it.part.stop!();
  });
});
