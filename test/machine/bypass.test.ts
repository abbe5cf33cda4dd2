import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { kubeletKubeconfig } from "../../src/machine/kubelet-files.ts";

const script = join(import.meta.dir, "../../src/machine/bypass.sh");
const folder = mkdtempSync(join(tmpdir(), "holdfast-bypass-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const DROP_IN = "etc/systemd/system/kubelet.service.d/zz-holdfast.conf";
const BYPASS = "run/systemd/system/kubelet.service.d/zzz-holdfast-bypass.conf";
const SERVING = "etc/systemd/system/kubelet.service.d/zz-holdfast.serving.conf";
const PEM = "var/lib/holdfast/pki/kubelet-serving.pem";
const DIRECT =
  '[Service]\nEnvironment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"\n';
const RESTARTED = ["daemon-reload", "restart kubelet"];
const shells = [["dash"], ["busybox", "sh"]].filter(([program]) => Bun.which(program!) !== null);

/** A node in a folder: systemctl writes down what it is asked, curl answers by what stands in files. */
class Node {
  readonly root = mkdtempSync(join(folder, "node-"));
  #seconds = 1_000;

  constructor(readonly shell: readonly string[]) {
    this.write(DROP_IN, "[Service]\n");
    this.write("etc/holdfast/kubelet-direct.conf", DIRECT);
    this.write(
      "etc/kubernetes/kubelet.conf",
      `clusters:\n- cluster:\n    certificate-authority-data: ${btoa("the CA\n")}\n    server: https://10.0.0.2:6443\n  name: k\n`,
    );
    this.write(
      "etc/holdfast/kubelet.kubeconfig",
      kubeletKubeconfig(
        "users: [{name: u, user: {client-certificate: /c, client-key: /k}}]\ncontexts: [{name: x, context: {user: u}}]\ncurrent-context: x\n",
        "https://127.0.0.1:10268",
        "/var/lib/holdfast/pki/local-ca.crt",
      ),
    );
    this.write("bin/systemctl", `#!/bin/sh\necho "$*" >> ${this.root}/asked\n[ ! -e ${this.root}/systemd-fails ]\n`);
    // Speaks as curl does: 22 for a status with -f, 7 for no connection, the status with -w.
    this.write(
      "bin/curl",
      `#!/bin/sh
ca=
for word; do [ "$before" = --cacert ] && ca=$word; before=$word; done
case $word in
  https://10.0.0.2:6443/readyz) [ "$(cat "$ca")" = "the CA" ] || exit 60; cat ${this.root}/api 2>/dev/null || exit 7 ;;
  http://127.0.0.1:10267/livez) [ -e ${this.root}/live ] || exit 7 ;;
  http://127.0.0.1:10267/readyz) [ -e ${this.root}/ready ] || exit 22 ;;
  *) exit 6 ;;
esac
`,
    );
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    writeFileSync(join(this.root, path), text, { mode: 0o755 });
  }
  remove(path: string): void {
    rmSync(join(this.root, path), { recursive: true, force: true });
  }
  has(path: string): boolean {
    return existsSync(join(this.root, path));
  }
  asked(): string[] {
    if (!this.has("asked")) return [];
    return readFileSync(join(this.root, "asked"), "utf8").trim().split("\n");
  }

  /** Lets so much time pass, then looks. */
  look(afterSeconds = 60, ...args: string[]) {
    this.#seconds += afterSeconds;
    this.write("uptime", `${this.#seconds}.42 17.00\n`);
    const { exitCode, stdout, stderr } = Bun.spawnSync([...this.shell, script, ...args], {
      env: {
        PATH: process.env["PATH"]!,
        HOLDFAST_ROOT: this.root,
        SYSTEMCTL: join(this.root, "bin/systemctl"),
        CURL: join(this.root, "bin/curl"),
        UPTIME_FILE: join(this.root, "uptime"),
      },
    });
    return { exitCode, out: stdout.toString() + stderr.toString() };
  }

  /** Down for two minutes with the API server there. */
  bypassed(): this {
    this.write("api", "200");
    for (let n = 0; n < 3; n++) this.look();
    expect(this.has(BYPASS)).toBe(true);
    return this;
  }
}

describe.each(shells)("bypass.sh under %s %s", (...shell) => {
  const node = () => new Node(shell.filter((word) => typeof word === "string"));

  test("a healthy Holdfast is left alone, and a short absence too", () => {
    const it = node();
    it.write("api", "200");
    it.write("live", "");
    for (let n = 0; n < 5; n++) it.look();
    it.remove("live");
    it.look();
    it.look();
    it.write("live", "");
    it.look();
    it.remove("live");
    it.look();
    it.look(119);
    expect({ asked: it.asked(), bypassed: it.has(BYPASS) }).toEqual({ asked: [], bypassed: false });
  });

  test("kubelet is restarted once when it is told to show a certificate that has ended, when that changes and when it is over", () => {
    const it = node();
    it.write("live", "");
    it.write("run/holdfast/kubelet-ended.env", "KUBELET_KUBECONFIG_ARGS=--rotate-certificates=false\n");
    expect(it.look().out).toContain("it shows it all the same");
    it.look();
    expect(it.asked()).toEqual(["restart kubelet"]);
    it.write("run/holdfast/kubelet-ended.env", "KUBELET_KUBECONFIG_ARGS=--tls-cert-file=x\n");
    it.look();
    it.remove("run/holdfast/kubelet-ended.env");
    expect(it.look().out).toContain("kubelet renews its certificate again");
    it.look();
    expect(it.asked()).toEqual(["restart kubelet", "restart kubelet", "restart kubelet"]);
  });

  test("on the direct way nothing says how kubelet is to start", () => {
    const it = node();
    it.write("run/holdfast/kubelet-ended.env", "KUBELET_KUBECONFIG_ARGS=--rotate-certificates=false\n");
    it.bypassed();
    expect(it.has("run/holdfast/kubelet-ended.env")).toBe(false);
  });

  test.each(["200", "401", "403"])(
    "down for two minutes, and the API server answers %s: kubelet goes its direct way, once",
    (status) => {
      const it = node();
      it.write("api", status);
      it.look();
      it.look();
      expect(it.asked()).toEqual([]);
      expect(it.look().out).toContain("kubelet goes the direct way now");
      it.look();
      expect(it.asked()).toEqual(RESTARTED);
      expect(readFileSync(join(it.root, BYPASS), "utf8")).toBe(DIRECT);
      expect(it.has(DROP_IN)).toBe(true);
    },
  );

  test.each([
    ["does not answer", undefined, "the CA\n"],
    ["answers 503", "503", "the CA\n"],
    ["is somebody else under another CA", "200", "another\n"],
  ])("down, and the API server %s: nothing is done however long", (_, status, ca) => {
    const it = node();
    if (status !== undefined) it.write("api", status);
    it.write(
      "etc/kubernetes/kubelet.conf",
      `    certificate-authority-data: ${btoa(ca)}\n    server: https://10.0.0.2:6443\n`,
    );
    for (let n = 0; n < 10; n++) it.look();
    expect({ asked: it.asked(), bypassed: it.has(BYPASS) }).toEqual({ asked: [], bypassed: false });
  });

  test("ready for ten minutes without a break: kubelet goes back through Holdfast", () => {
    const it = node().bypassed();
    it.write("live", "");
    it.write("ready", "");
    for (let n = 0; n < 9; n++) it.look();
    it.remove("ready");
    it.look();
    it.write("ready", "");
    for (let n = 0; n < 10; n++) it.look();
    expect(it.asked()).toEqual(RESTARTED);
    it.look();
    expect({ asked: it.asked(), bypassed: it.has(BYPASS) }).toEqual({
      asked: [...RESTARTED, ...RESTARTED],
      bypassed: false,
    });
    it.look();
    expect(it.asked()).toHaveLength(4);
  });

  test("a restart that failed is tried again at the next look, either way", () => {
    const it = node();
    it.write("api", "200");
    it.write("systemd-fails", "");
    it.look();
    it.look();
    expect(it.look().exitCode).toBe(1);
    it.remove("systemd-fails");
    expect(it.look().out).toContain("kubelet goes the direct way now");
    it.write("live", "");
    it.write("ready", "");
    it.look();
    it.write("systemd-fails", "");
    expect(it.look(600).exitCode).toBe(1);
    it.remove("systemd-fails");
    expect(it.look().out).toContain("kubelet goes the holdfast way now");
    expect(it.has(BYPASS)).toBe(false);
  });

  test("a power cut ends the bypass: what is in /run is gone, kubelet goes through Holdfast", () => {
    const it = node().bypassed();
    it.remove("run");
    it.remove("asked");
    it.write("live", "");
    it.look(-900);
    expect({ asked: it.asked(), bypassed: it.has(BYPASS) }).toEqual({ asked: [], bypassed: false });
  });

  test("a node that was not adopted is not touched", () => {
    const it = node();
    it.remove(DROP_IN);
    it.write("api", "200");
    for (let n = 0; n < 5; n++) expect(it.look().exitCode).toBe(0);
    expect(it.asked()).toEqual([]);
  });

  test("kubelet is led to the certificate that is kept for it once it is there, and back when it is gone", () => {
    const it = node();
    it.write("live", "");
    it.look();
    expect(it.asked()).toEqual([]);
    it.write(PEM, "certificate and key");
    expect(it.look().out).toContain("kubelet serves by the certificate that Holdfast keeps");
    it.look();
    // What kubelet reads anew by itself needs no restart.
    it.write(PEM, "renewed");
    it.look();
    expect(it.asked()).toEqual(RESTARTED);
    expect(readFileSync(join(it.root, SERVING), "utf8")).toBe(
      `# Made by "bypass.sh"; "holdfast revert" takes it away.\n[Service]\nEnvironment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/holdfast/kubelet.kubeconfig --rotate-server-certificates=false --tls-cert-file=/${PEM} --tls-private-key-file=/${PEM}"\n`,
    );
    it.remove(PEM);
    expect(it.look().out).toContain("its own certificate again");
    expect({ asked: it.asked(), led: it.has(SERVING) }).toEqual({ asked: [...RESTARTED, ...RESTARTED], led: false });
  });

  test("a kubelet that could not be restarted with its certificate is at the next look; the direct way knows nothing of it", () => {
    const it = node();
    it.write("live", "");
    it.write(PEM, "certificate and key");
    it.write("systemd-fails", "");
    expect(it.look().exitCode).toBe(1);
    it.remove("systemd-fails");
    it.remove("asked");
    it.look();
    it.look();
    expect(it.asked()).toEqual(RESTARTED);
    it.remove("live");
    it.bypassed();
    expect(readFileSync(join(it.root, BYPASS), "utf8")).toBe(DIRECT);
    it.look(0, "--revert");
    expect(it.has(SERVING)).toBe(false);
  });

  test("--revert takes kubelet off Holdfast's way without a link, and a second time does nothing", () => {
    const it = node();
    expect(it.look(0, "--revert").exitCode).toBe(0);
    expect({ asked: it.asked(), adopted: it.has(DROP_IN) }).toEqual({ asked: RESTARTED, adopted: false });
    expect(it.look(0, "--revert").out).toContain("already");
    expect(it.asked()).toEqual(RESTARTED);
  });
});
