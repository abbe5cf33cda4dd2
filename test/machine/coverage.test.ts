import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ociArchive } from "../../scripts/image/oci.ts";
import { coverageWords, isCovered } from "../../src/health/coverage-report.ts";
import { needsOfPod } from "../../src/kube/pod-needs.ts";
import { hasImage, localImages, registryOf, wholeImageName } from "../../src/machine/container-images.ts";
import { coverageOn } from "../../src/machine/coverage.ts";
import { networkVerdict } from "../../src/machine/network-plugin.ts";
import { eventually } from "../support/client.ts";
import { serveImages } from "./cri-stand-in.ts";

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A machine with these files. */
function machine(files: Readonly<Record<string, string>> = {}): { readonly root: string } {
  const root = mkdtempSync(join(tmpdir(), "holdfast-cover-"));
  folders.push(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return { root };
}

const SOCKET = "/run/containerd/containerd.sock";
const bridge = JSON.stringify({
  cniVersion: "1.0.0",
  name: "pods",
  plugins: [{ type: "bridge", ipam: { type: "host-local" } }, { type: "portmap" }],
});
const pod = (name: string, spec: object = {}) =>
  needsOfPod({
    metadata: { namespace: "shop", name, uid: `uid-${name}` },
    spec: { containers: [{ image: "nginx:1.27", imagePullPolicy: "IfNotPresent" }], ...spec },
  })!;
const kept = (...needs: readonly ReturnType<typeof pod>[]) => ({
  node: [],
  pods: needs.map((one) => ({ needs: one, missing: [], unknown: [] })),
});

test("a pod comes back when its image lies here and its network plugin needs nobody", async () => {
  const here = machine({ "etc/cni/net.d/10-pods.conflist": bridge });
  using _ = await serveImages(join(here.root, SOCKET), [{ id: "sha256:aa", tags: ["docker.io/library/nginx:1.27"] }]);
  const report = await coverageOn(here, kept(pod("web")), 42);
  expect(report).toMatchObject({ kind: "Coverage", atMs: 42, imagesFrom: SOCKET, pods: [{ comesBack: "yes" }] });
  expect(isCovered(report)).toBe(true);
  expect(coverageWords(report)).toBe("can walk away: 1 of 1 pod comes back");
});

test("what is missing is named: an image that is not here, one that is pulled at each start", async () => {
  const here = machine({ "etc/cni/net.d/10-pods.conflist": bridge });
  using _ = await serveImages(join(here.root, SOCKET), [{ id: "sha256:aa", tags: ["docker.io/library/nginx:1.27"] }]);
  const containers = (image: string, imagePullPolicy: string) => ({ containers: [{ image, imagePullPolicy }] });
  const report = await coverageOn(
    here,
    kept(
      pod("gone", containers("redis", "IfNotPresent")),
      pod("far", containers("nginx:1.27", "Always")),
      pod("near", containers("registry.lan/nginx:1.27", "Always")),
      pod("web"),
    ),
    0,
  );
  expect(report.pods.map(({ name, comesBack }) => [name, comesBack])).toEqual([
    ["far", "no"],
    ["gone", "no"],
    ["near", "no"],
    ["web", "yes"],
  ]);
  expect(coverageWords(report)).toBe(
    "1 of 4 pods come back; shop/far lacks image nginx:1.27 (imagePullPolicy Always: pulled at each start, from beyond the link) (and 2 more)",
  );
});

test.each([
  ["no socket at all", undefined, "no container runtime's socket was found"],
  [
    "one that has no such method",
    "refuses" as const,
    `the container runtime on ${SOCKET} did not say: it answered without`,
  ],
  ["one that never answers", "silent" as const, `the container runtime on ${SOCKET} did not say: no answer within`],
])("with %s an image is unknown, and never said to be here or missing", async (_, how, why) => {
  const here = machine({ "etc/cni/net.d/10-pods.conflist": bridge });
  using __ = how === undefined ? undefined : await serveImages(join(here.root, SOCKET), [], how);
  const report = await coverageOn(here, kept(pod("web")), 0);
  expect(report.pods[0]).toMatchObject({ comesBack: "unknown", missing: [], unknown: [{ kind: "image" }] });
  expect(report.pods[0]!.unknown[0]!.why).toStartWith(why);
  expect(coverageWords(report)).toStartWith("0 of 1 pod comes back, 1 unknown; shop/web needs image nginx:1.27");
});

test.each([
  ['KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/x.sock"', "kubeadm-flags.env"],
  ["containerRuntimeEndpoint: unix:///run/x.sock\n", "config.yaml"],
])("the socket that kubelet's own configuration names is asked: %s", async (text, file) => {
  const here = machine({ [`var/lib/kubelet/${file}`]: text });
  using _ = await serveImages(join(here.root, "/run/x.sock"), [{ id: "i", tags: ["docker.io/library/a:latest"] }]);
  using __ = await serveImages(join(here.root, SOCKET), []);
  expect(await localImages(here)).toMatchObject({ socket: "/run/x.sock" });
});

test.each([
  ["nginx", "docker.io/library/nginx:latest"],
  ["nginx:1.27", "docker.io/library/nginx:1.27"],
  ["team/app", "docker.io/team/app:latest"],
  ["localhost/app:1", "localhost/app:1"],
  ["registry.local:5000/app", "registry.local:5000/app:latest"],
  ["registry.k8s.io/pause:3.10@sha256:ab12", "registry.k8s.io/pause@sha256:ab12"],
])("the runtime keeps %s as %s", (given, whole) => {
  expect(wholeImageName(given)).toBe(whole);
});

test.each([
  ["localhost:5000/a", "here"],
  ["127.0.0.1:5000/a", "here"],
  ["10.1.2.3/a", "near"],
  ["172.20.0.1:5000/a", "near"],
  ["nas.lan/a", "near"],
  ["172.40.0.1/a", "far"],
  ["nginx", "far"],
  ["ghcr.io/a/b", "far"],
])("the registry of %s is %s", (image, distance) => {
  expect(registryOf(image)).toBe(distance as "far");
});

describe("the network plugin, by docs/cni.md", () => {
  const of = (document: object, more: Readonly<Record<string, string>> = {}) =>
    networkVerdict(machine({ "etc/cni/net.d/10-pods.conflist": JSON.stringify(document), ...more }));
  const names = ({ missing, unknown }: ReturnType<typeof networkVerdict>) => ({
    missing: missing.map(({ name }) => name),
    unknown: unknown.map(({ name }) => name),
  });

  test.each([
    ["bridge and host-local", JSON.parse(bridge), [], []],
    ["one plugin, not a list", { type: "ptp", ipam: { type: "host-local" } }, [], []],
    ["calico-ipam", { plugins: [{ type: "calico", ipam: { type: "calico-ipam" } }] }, ["calico-ipam"], ["calico"]],
    [
      "Whereabouts behind Multus",
      { type: "multus", delegates: [{ type: "bridge", ipam: { type: "whereabouts" } }] },
      ["whereabouts"],
      [],
    ],
    ["flannel", { plugins: [{ type: "flannel" }] }, [], ["flannel"]],
    ["one nobody has tried", { plugins: [{ type: "cilium-cni" }] }, [], ["cilium-cni"]],
  ])("%s", (_, document, missing, unknown) => {
    expect(names(of(document))).toEqual({ missing, unknown });
  });

  test("no configuration, one that cannot be read, a program that is not there", () => {
    expect(names(networkVerdict(machine()))).toEqual({ missing: ["CNI"], unknown: [] });
    expect(names(networkVerdict(machine({ "etc/cni/net.d/1.conf": "{" })))).toEqual({
      missing: [],
      unknown: ["1.conf"],
    });
    expect(names(of(JSON.parse(bridge), { "opt/cni/bin/bridge": "", "opt/cni/bin/portmap": "" })).missing).toEqual([
      "host-local",
    ]);
  });

  test("a pod on the host's network needs none of it", async () => {
    const here = machine();
    using _ = await serveImages(join(here.root, SOCKET), [{ id: "i", tags: ["docker.io/library/nginx:1.27"] }]);
    const report = await coverageOn(here, kept(pod("host", { hostNetwork: true }), pod("web")), 0);
    expect(report.pods.map(({ comesBack }) => comesBack)).toEqual(["yes", "no"]);
  });
});

const containerd = Bun.which("containerd");
const isRoot = process.getuid?.() === 0;
test.skipIf(containerd === null || Bun.which("ctr") === null || !isRoot)(
  `a real containerd says which images it has${containerd === null || !isRoot ? " (needs containerd, ctr and root)" : ""}`,
  async () => {
    const here = machine();
    const path = join(here.root, SOCKET);
    const config = join(here.root, "config.toml");
    writeFileSync(
      config,
      `version = 2\nroot = "${here.root}/root"\nstate = "${here.root}/state"\n[grpc]\n  address = "${path}"\n[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "native"\n`,
    );
    const process_ = Bun.spawn([containerd!, "-c", config], { stdout: "ignore", stderr: "ignore" });
    try {
      await eventually(
        () => localImages(here),
        (images) => typeof images !== "string",
      );
      const { bytes } = ociArchive(
        [{ architecture: process.arch === "x64" ? "amd64" : "arm64", layers: [], labels: {} }],
        {
          name: "registry.test/tiny:1",
          created: "2026-01-01T00:00:00Z",
          entrypoint: ["/tiny"],
          user: "0",
          annotations: {},
        },
      );
      writeFileSync(join(here.root, "tiny.tar"), bytes);
      const { exitCode, stderr } = Bun.spawnSync([
        ...["ctr", "--address", path, "-n", "k8s.io", "images", "import", "--no-unpack", join(here.root, "tiny.tar")],
      ]);
      expect([exitCode, stderr.toString()]).toEqual([0, ""]);
      const images = await eventually(
        () => localImages(here),
        (found) => typeof found !== "string" && hasImage(found, "registry.test/tiny:1"),
      );
      expect(typeof images === "string" ? images : hasImage(images, "registry.test/tiny:2")).toBe(false);
    } finally {
      process_.kill();
      await process_.exited;
    }
  },
  20_000,
);
