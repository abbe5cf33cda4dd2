import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { silentLog } from "../../src/base/log.ts";
import { loadConfig } from "../../src/config/config.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import type { Checked } from "../../src/machine/checks/checked.ts";
import { exitCodeOf } from "../../src/machine/checks/checked.ts";
import { credentialChecks } from "../../src/machine/checks/credentials.ts";
import { cacheChecks, sandboxChecks } from "../../src/machine/checks/daemon.ts";
import { hostChecks } from "../../src/machine/checks/host.ts";
import { kubeletChecks } from "../../src/machine/checks/kubelet.ts";
import { networkChecks } from "../../src/machine/checks/network.ts";
import { tunnelChecks, type TunnelGround } from "../../src/machine/checks/tunnel.ts";
import { kubeletDropIn, kubeletKubeconfig } from "../../src/machine/kubelet-files.ts";
import type { Machine } from "../../src/machine/machine.ts";
import { KUBELET_DROP_IN, KUBELET_KUBECONFIG, KUBELET_SERVING_DROP_IN } from "../../src/machine/places.ts";
import { unitFiles } from "../../src/machine/units.ts";
import { report } from "../health/report.ts";
import { startConnectProxy } from "../support/connect-proxy.ts";

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "holdfast-checks-"));
  folders.push(path);
  return path;
}

/** A machine in a folder; nothing of it is started. */
function machineWith(files: Readonly<Record<string, string>>, root = folder()): Machine {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return {
    root,
    systemctl: () => Promise.reject(new Error("a check changes nothing")),
    containers: () => Promise.resolve(undefined),
    stopContainer: () => Promise.resolve(),
    nowMs: () => 0,
    wait: () => Promise.resolve(),
    onStep() {},
  };
}

const levels = (checks: readonly Checked[]) => Object.fromEntries(checks.map(({ id, level }) => [id, level]));
const one = (checks: readonly Checked[], id: string) => checks.find((check) => check.id === id)!;

describe("host", () => {
  const nowMs = Date.UTC(2026, 10, 30);
  const look = (files: Readonly<Record<string, string>>, atMs = nowMs) =>
    hostChecks({
      machine: machineWith({ "var/lib/holdfast/x": "", ...files }),
      stateDir: "/var/lib/holdfast",
      nowMs: atMs,
    });
  const well = {
    "proc/meminfo": "MemTotal:        3884480 kB\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "run/systemd/timesync/synchronized": "",
  };

  test("a machine that is well", () => {
    const checks = look(well);
    expect(levels(checks)).toMatchObject({
      "host/architecture": "ok",
      "host/page-size": "ok",
      "host/memory": "ok",
      "host/memory-cgroup": "ok",
      "host/disk": "ok",
      "host/clock": "ok",
    });
    expect(one(checks, "host/memory").cause).toBe("4.0 GB");
  });

  test.each([
    ["half a gigabyte", { "proc/meminfo": "MemTotal:  498000 kB\n" }, "host/memory", "warning"],
    [
      "Raspberry Pi OS as it comes",
      { "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n" },
      "host/memory-cgroup",
      "failed",
    ],
    [
      "the older groups",
      { "sys/fs/cgroup/cgroup.controllers": "", "proc/cgroups": "memory\t8\t12\t1\n" },
      "host/memory-cgroup",
      "ok",
    ],
    [
      "the older groups, switched off",
      { "sys/fs/cgroup/cgroup.controllers": "", "proc/cgroups": "memory\t0\t1\t0\n" },
      "host/memory-cgroup",
      "failed",
    ],
  ] as const)("%s", (_, files, id, level) => {
    expect(one(look({ ...well, ...files }), id).level).toBe(level);
  });

  test("a clock in 1970 fails, one that nobody set is a warning", () => {
    expect(one(look(well, 86_400_000), "host/clock")).toMatchObject({
      level: "failed",
      cause: expect.stringContaining("1970-01-02"),
    });
    const { "run/systemd/timesync/synchronized": _, ...unset } = well;
    expect(one(look(unset), "host/clock").level).toBe("warning");
  });

  test.each([
    ["0x02 0x03", "0x01", "ok", "up to 30 %"],
    ["0x09 0x01", "0x01", "warning", "up to 90 %"],
    ["0x01 0x01", "0x02", "warning", "spare blocks"],
    ["0x00 0x00", "0x00", "skipped", "does not say"],
  ] as const)("an eMMC that says %s, %s", (lifeTime, spare, level, words) => {
    const machine = machineWith({ "var/lib/holdfast/x": "", ...well });
    const { dev } = require("node:fs").statSync(join(machine.root, "var/lib/holdfast"));
    const number = BigInt(dev);
    const major = ((number >> 32n) & 0xfffff000n) | ((number >> 8n) & 0xfffn);
    const minor = ((number >> 12n) & 0xffffff00n) | (number & 0xffn);
    machineWith(
      {
        "sys/devices/mmc/block/mmcblk0/mmcblk0p2/partition": "2",
        "sys/devices/mmc/block/mmcblk0/device/life_time": `${lifeTime}\n`,
        "sys/devices/mmc/block/mmcblk0/device/pre_eol_info": `${spare}\n`,
        "sys/dev/block/x": "",
      },
      machine.root,
    );
    symlinkSync("../../devices/mmc/block/mmcblk0/mmcblk0p2", join(machine.root, `sys/dev/block/${major}:${minor}`));
    const checks = hostChecks({ machine, stateDir: "/var/lib/holdfast", nowMs });
    expect(one(checks, "host/disk-wear")).toMatchObject({ level, cause: expect.stringContaining(words) });
  });
});

describe("network, layer by layer", () => {
  const setUp = async () => {
    const apiServer = await startApiServer({
      objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } }],
    });
    const look = (
      kubeconfig = apiServer.kubeconfig({ user: "system:node:edge1", groups: ["system:nodes"] }),
      env = {},
    ) => {
      const path = join(folder(), "kubeconfig");
      writeFileSync(path, kubeconfig);
      const { config } = loadConfig({ kubeconfig: path, stateDir: folder() }, env, { log: silentLog });
      return networkChecks(config.upstream);
    };
    return { apiServer, look, [Symbol.asyncDispose]: () => apiServer.stop() };
  };
  const blocked = { level: "skipped", cause: "a layer below it failed" };

  test("all is well", async () => {
    await using world = await setUp();
    const checks = await world.look();
    expect(checks.map(({ id, level }) => [id, level])).toEqual([
      ["network/proxy", "ok"],
      ["network/dns", "skipped"],
      ["network/tcp", "ok"],
      ["network/tls", "ok"],
      ["network/http", "ok"],
      ["network/api", "ok"],
    ]);
    expect(one(checks, "network/api").cause).toBe("node edge1 is known");
  });

  test.each([
    ["a portal that answers with a page", { status: 200, body: "<html>please pay</html>" }],
    ["a firewall that says no", { status: 403, body: "<html>blocked</html>" }],
    ["a redirect", { status: 302, headers: { location: "https://portal.test/" } }],
  ])("%s fails at http, and no credential goes out", async (_, answer) => {
    await using world = await setUp();
    world.apiServer.answerInstead(answer);
    const checks = await world.look();
    expect(one(checks, "network/tls").level).toBe("ok");
    expect(one(checks, "network/http")).toMatchObject({
      level: "failed",
      cause: expect.stringContaining("something else answers"),
    });
    expect(one(checks, "network/api")).toMatchObject(blocked);
    expect(world.apiServer.requests.every(({ user }) => user === "" || user === "system:anonymous")).toBe(true);
  });

  test("a certificate of another CA fails at tls, in words", async () => {
    await using world = await setUp();
    const other = mintCluster();
    const kubeconfig = other.kubeconfig({
      server: world.apiServer.url,
      user: "system:node:edge1",
      groups: ["system:nodes"],
    });
    const checks = await world.look(kubeconfig);
    expect(one(checks, "network/tls")).toMatchObject({
      level: "failed",
      cause: expect.stringContaining("is signed by"),
    });
    expect(one(checks, "network/http")).toMatchObject(blocked);
  });

  test("a server that is gone fails at tcp; a name that is none at dns", async () => {
    await using world = await setUp();
    const { port } = world.apiServer;
    await world.apiServer.cut();
    expect(one(await world.look(), "network/tcp")).toMatchObject({
      level: "failed",
      cause: expect.stringContaining("refused"),
    });
    const named = world.apiServer.kubeconfig({ user: "a", server: `https://nobody.invalid:${port}` });
    const checks = await world.look(named);
    expect(one(checks, "network/dns").level).toBe("failed");
    expect(one(checks, "network/tcp")).toMatchObject(blocked);
  });

  test("a credential that is refused, and a node that is gone, fail at api", async () => {
    await using world = await setUp();
    const refused = await world.look(world.apiServer.kubeconfig({ token: "unknown" }));
    expect(one(refused, "network/http").level).toBe("ok");
    expect(one(refused, "network/api")).toMatchObject({ level: "failed", cause: expect.stringContaining("401") });
    expect(JSON.stringify(refused)).not.toContain('unknown"');
    world.apiServer.remove("Node", "", "edge1");
    expect(one(await world.look(), "network/api")).toMatchObject({
      level: "failed",
      cause: expect.stringContaining("404"),
    });
  });

  test("a proxy is named without its password; one that says no fails at tls", async () => {
    await using world = await setUp();
    await using proxy = await startConnectProxy();
    const kubeconfig = world.apiServer
      .kubeconfig({ user: "system:node:edge1", groups: ["system:nodes"] })
      .replace(
        '"certificate-authority-data"',
        `"proxy-url":"${proxy.url.replace("//", "//me:secret@")}","certificate-authority-data"`,
      );
    expect(kubeconfig).toContain("proxy-url");
    const checks = await world.look(kubeconfig);
    expect(one(checks, "network/proxy").cause).toBe(`through the proxy ${proxy.url}`);
    expect(JSON.stringify(checks)).not.toContain("secret");
    expect(one(checks, "network/api").level).toBe("ok");
    expect(proxy.targets.length).toBeGreaterThan(0);
    const no = createServer((socket) => socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    const { promise, resolve } = Promise.withResolvers<void>();
    no.listen(0, "127.0.0.1", resolve);
    await promise;
    const { port } = no.address() as { port: number };
    const refused = await world.look(
      kubeconfig.replace(/"proxy-url":"[^"]+"/, `"proxy-url":"http://127.0.0.1:${port}"`),
    );
    no.close();
    expect(one(refused, "network/tls")).toMatchObject({
      level: "failed",
      cause: "the HTTP proxy refused the connection",
    });
  });
});

describe("credentials", () => {
  const setUp = (validity?: { readonly notBeforeMs: number; readonly notAfterMs: number }) => {
    const cluster = mintCluster();
    const dir = folder();
    const path = join(dir, "kubeconfig");
    const keyPair = cluster.clientCertificate("system:node:edge1", ["system:nodes"], validity as never);
    writeFileSync(path, cluster.kubeconfig({ server: "https://127.0.0.1:1", keyPair }));
    const stateDir = join(dir, "state");
    mkdirSync(join(stateDir, "keys"), { recursive: true, mode: 0o700 });
    chmodSync(join(stateDir, "keys"), 0o700);
    chmodSync(stateDir, 0o700);
    writeFileSync(join(stateDir, "keys", "seal.key"), "x", { mode: 0o600 });
    return { config: loadConfig({ kubeconfig: path, stateDir }, {}, { log: silentLog }).config, stateDir };
  };

  test("a node's certificate of its own CA, with files that nobody else may open", () => {
    const { config, stateDir } = setUp();
    expect(levels(credentialChecks(config, Date.now()))).toEqual({
      "credentials/identity": "ok",
      "credentials/certificate": "ok",
      "credentials/chain": "ok",
      "credentials/modes": "ok",
    });
    chmodSync(join(stateDir, "keys", "seal.key"), 0o644);
    expect(one(credentialChecks(config, Date.now()), "credentials/modes")).toMatchObject({
      level: "failed",
      cause: `others may open ${stateDir}/keys/seal.key`,
      next: `chmod go-rwx ${stateDir}/keys/seal.key`,
    });
  });

  test("its end: far, near, past; and its beginning, by a clock that is behind", () => {
    const { config } = setUp();
    const of = (atMs: number) => one(credentialChecks(config, atMs), "credentials/certificate").level;
    const { X509Certificate } = require("node:crypto") as typeof import("node:crypto");
    const credential = config.upstream.credential;
    const { certPem } = credential.kind === "certificate" ? credential.read() : { certPem: "" };
    const endMs = Date.parse(new X509Certificate(certPem).validTo);
    expect([of(Date.now()), of(endMs - 60_000), of(endMs + 1), of(0)]).toEqual(["ok", "warning", "failed", "failed"]);
  });
});

describe("kubelet", () => {
  const direct = JSON.stringify({
    "current-context": "c",
    contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
    users: [
      {
        name: "u",
        user: { "client-certificate": "/var/lib/kubelet/pki/x.pem", "client-key": "/var/lib/kubelet/pki/x.pem" },
      },
    ],
  });
  const joined = { "var/lib/kubelet/config.yaml": "", "etc/kubernetes/kubelet.conf": direct };
  const unit = `[Service]\nEnvironment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/kubernetes/kubelet.conf"\nExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS\n`;
  const server = "https://127.0.0.1:10268";
  const ours = Object.fromEntries(
    unitFiles({ profile: "small", binary: "/usr/local/bin/holdfast" }).map(({ path, text }) => [path, text]),
  );
  const adopted = (stateDir: string) => ({
    ...joined,
    ...ours,
    "etc/systemd/system/kubelet.service": unit,
    [KUBELET_DROP_IN]: kubeletDropIn(),
    [KUBELET_KUBECONFIG]: kubeletKubeconfig(direct, server, `${stateDir}/pki/local-ca.crt`),
    "etc/systemd/system/timers.target.wants/holdfast-bypass.timer": "",
  });
  const look = (files: (stateDir: string) => Readonly<Record<string, string>>, phase?: string) => {
    const stateDir = folder();
    if (phase !== undefined)
      writeFileSync(
        join(stateDir, "adopt.json"),
        JSON.stringify({ version: 1, phase, files: [], folders: [], enabled: [] }),
      );
    return kubeletChecks({ machine: machineWith(files(stateDir)), stateDir, server });
  };

  test("another distribution is told what works there; a joined node what comes next", () => {
    expect(
      one(
        look(() => ({ "etc/rancher/k3s/x": "" })),
        "kubelet/distribution",
      ),
    ).toMatchObject({ level: "warning", cause: expect.stringContaining("k3s") });
    const checks = look(() => joined);
    expect(one(checks, "kubelet/adopted")).toMatchObject({ level: "warning", next: "holdfast adopt" });
    expect(one(checks, "kubelet/units").level).toBe("warning");
  });

  test("adopted: all as it was made, and each file that is not", () => {
    expect(exitCodeOf(look(adopted, "adopted"))).toBe(0);
    const changed = (path: string) => (stateDir: string) => ({ ...adopted(stateDir), [path]: "# mine" });
    expect(one(look(changed(KUBELET_DROP_IN), "adopted"), "kubelet/drop-in").level).toBe("warning");
    expect(one(look(changed(KUBELET_KUBECONFIG), "adopted"), "kubelet/drop-in").level).toBe("warning");
    expect(one(look(changed("/usr/local/lib/holdfast/bypass.sh"), "adopted"), "kubelet/units")).toMatchObject({
      level: "warning",
      cause: expect.stringContaining("bypass.sh"),
    });
    const bypassed = look(
      (stateDir) => ({ ...adopted(stateDir), "run/systemd/system/kubelet.service.d/zzz-holdfast-bypass.conf": "" }),
      "adopted",
    );
    expect(one(bypassed, "kubelet/bypass").level).toBe("failed");
    expect(exitCodeOf(bypassed)).toBe(1);
  });
});

describe("cache and sandbox, by the daemon's report", () => {
  const pod = (name: string, comesBack: "yes" | "no" | "unknown") => ({
    namespace: "shop",
    name,
    uid: name,
    comesBack,
    missing: comesBack === "no" ? [{ kind: "image", name: "x", why: "not on this machine" }] : [],
    unknown:
      comesBack === "unknown" ? [{ kind: "claim", name: "data", why: "its volume may lie beyond this machine" }] : [],
  });
  const coverage = (pods: ReturnType<typeof pod>[], node: { kind: string; name: string; why: string }[] = []) =>
    ({ apiVersion: "holdfast.dev/v1alpha1", kind: "Coverage", atMs: 0, node, imagesFrom: "/s", pods }) as const;

  test("each pod that does not come back is a failure with its remedy, one that may not a warning", () => {
    const checks = cacheChecks(report({ coverage: coverage([pod("a", "yes"), pod("b", "no"), pod("c", "unknown")]) }));
    expect(levels(checks)).toEqual({
      "cache/store": "ok",
      "cache/sealing": "ok",
      "cache/coverage": "warning",
      "cache/pod:shop/b": "failed",
      "cache/pod:shop/c": "warning",
    });
    expect(one(checks, "cache/pod:shop/b").next).toContain("crictl pull");
    expect(exitCodeOf(cacheChecks(report({ coverage: coverage([pod("a", "yes")]) })))).toBe(0);
  });

  test("a store in memory, a sealing key in memory, a condition, and a kubelet that never came", () => {
    const { store } = report();
    const checks = cacheChecks(
      report({
        store: { ...store, mode: "memory", reason: "ENOSPC", sealing: "memory" },
        conditions: [{ type: "ClockBehind", reason: "Past", message: "m", next: "See: timedatectl" }],
        coverage: coverage([], [{ kind: "node", name: "pods", why: "never listed" }]),
      }),
    );
    expect(levels(checks)).toEqual({
      "cache/store": "failed",
      "cache/sealing": "failed",
      "cache/ClockBehind": "warning",
      "cache/coverage": "failed",
    });
    expect(one(checks, "cache/ClockBehind").next).toBe("See: timedatectl");
  });

  test("a process in its sandbox, one started by hand, and one that cannot be looked at", () => {
    const status = (caps: string, noNew: number, seccomp: number) => () =>
      `CapEff:\t${caps}\nNoNewPrivs:\t${noNew}\nSeccomp:\t${seccomp}\n`;
    expect(exitCodeOf(sandboxChecks(1, status("0000000000000000", 1, 2)))).toBe(0);
    expect(sandboxChecks(1, status("000001ffffffffff", 0, 0)).map(({ level }) => level)).toEqual([
      "warning",
      "warning",
      "warning",
    ]);
    expect(sandboxChecks(process.pid).length).toBe(3);
    expect(sandboxChecks(undefined)).toMatchObject([{ level: "skipped" }]);
  });
});

describe("tunnel", () => {
  const place = { addresses: [{ type: "InternalIP", address: "10.96.7.7" }], port: 10_250 } as const;
  const open = { state: "open", gateway: "wss://a", sinceMs: 0, streams: 0 } as const;
  const look = (
    config: Partial<TunnelGround["config"]>,
    tunnel?: NonNullable<TunnelGround["report"]>["tunnel"],
    files = {},
  ) =>
    tunnelChecks({
      config: {
        place: undefined,
        servesKubelet: false,
        stateDir: "/var/lib/holdfast",
        upstream: { proxyFor: () => undefined } as never,
        ...config,
      },
      machine: machineWith(files),
      report: { nowMs: 90_000, ...(tunnel === undefined ? {} : { tunnel }) },
    });

  test("none is no fault, and a place of one's own is told", async () => {
    expect(levels(await look({}))).toEqual({ "tunnel/link": "skipped" });
    expect(one(await look({ place }), "tunnel/place").cause).toBe("the API server dials 10.96.7.7, port 10250");
  });

  test("each gateway, the tunnel and its place", async () => {
    await using gateway = await startApiServer();
    const gone = await refusing();
    const tunnel = { gateways: [gateway.url, gone], caPem: () => gateway.cluster.ca };
    const at = (url: string) => `tunnel/gateway@${new URL(url).host}`;
    const well = await look({ tunnel }, { ...open, place: "10.96.7.7:10250" });
    expect(levels(well)).toEqual({
      [at(gateway.url)]: "ok",
      [at(gone)]: "failed",
      "tunnel/link": "ok",
      "tunnel/place": "ok",
    });
    expect(one(well, at(gone)).cause).toContain("ECONNREFUSED");
    const nowhere = { gateways: [gateway.url], caPem: () => mintCluster().ca };
    const down = await look(
      { tunnel: nowhere },
      { ...open, state: "connecting", problem: "the gateway does not know us" },
    );
    expect(levels(down)).toEqual({ [at(gateway.url)]: "failed", "tunnel/link": "failed" });
    expect(one(down, "tunnel/link").cause).toBe("down for 90 s, trying wss://a: the gateway does not know us");
    expect(one(await look({ tunnel }, open), "tunnel/place").level).toBe("warning");
    expect(one(await look({ tunnel }), "tunnel/link").next).toBe("systemctl restart holdfast");
  });

  test("kubelet's certificate: asked for, there, and kubelet led to it", async () => {
    const level = async (files: Readonly<Record<string, string>>) =>
      one(await look({ place, servesKubelet: true }, undefined, files), "tunnel/serving").level;
    const pem = { "/var/lib/holdfast/pki/kubelet-serving.pem": "pem" };
    expect(await level({})).toBe("warning");
    expect(await level(pem)).toBe("warning");
    expect(await level({ ...pem, [KUBELET_SERVING_DROP_IN]: "[Service]" })).toBe("ok");
  });
});

/** A URL where nobody listens. */
async function refusing(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return `https://127.0.0.1:${port}`;
}
