import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseHostPort } from "../../src/base/address.ts";
import { podServer, podWayFrom, podWaySettings } from "../../src/machine/pod-way.ts";
import { eventually } from "../support/client.ts";

const script = join(import.meta.dir, "../../src/machine/pod-way.sh");
const folder = mkdtempSync(join(tmpdir(), "holdfast-pod-way-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const way = { serviceAddress: "10.96.0.1", listen: "169.254.102.68:10268" };
const shells = [["dash"], ["busybox", "sh"]].filter(([program]) => Bun.which(program!) !== null);

describe.each(shells)("pod-way.sh under %s", (...shell) => {
  const place = mkdtempSync(join(folder, "way-"));
  mkdirSync(join(place, "bin"));
  const settings = join(place, "pod-way.env");
  writeFileSync(settings, podWaySettings(way, "https://10.0.0.2:6443"));
  writeFileSync(join(place, "bin/nft"), `#!/bin/sh\ncat > ${place}/rules\n`, { mode: 0o755 });
  writeFileSync(join(place, "bin/ip"), `#!/bin/sh\necho "$*" >> ${place}/ip\n`, { mode: 0o755 });
  const run = (...args: readonly string[]) => {
    for (const name of ["rules", "ip"]) rmSync(join(place, name), { force: true });
    const { exitCode, stderr } = Bun.spawnSync([...shell, script, ...args], {
      env: { PATH: `${place}/bin:${process.env["PATH"]}`, HOLDFAST_POD_WAY: settings, IP: join(place, "bin/ip") },
    });
    const text = (name: string) => (existsSync(join(place, name)) ? readFileSync(join(place, name), "utf8") : "");
    return { exitCode, stderr: stderr.toString(), rules: text("rules"), ip: text("ip").trim() };
  };
  const leads = (rules: string) =>
    [...rules.matchAll(/daddr (\S+) tcp dport (\d+) dnat to (\S+);/g)].map((it) => it.slice(1));

  test("leads pods and the node itself to Holdfast's address, which is made first", () => {
    const { exitCode, rules, ip } = run("holdfast");
    const lead = ["10.96.0.1", "10268", "169.254.102.68:10268"];
    expect({ exitCode, leads: leads(rules), ip }).toEqual({
      exitCode: 0,
      leads: [lead, lead],
      ip: "addr replace 169.254.102.68/32 dev lo",
    });
    // Whatever was there goes in the same transaction.
    expect(rules.indexOf("delete table ip holdfast_pods")).toBeLessThan(rules.indexOf("prerouting"));
  });

  test("without us to the API server, and the address goes", () => {
    const { rules, ip } = run("direct");
    const lead = ["10.96.0.1", "10268", "10.0.0.2:6443"];
    expect({ leads: leads(rules), ip }).toEqual({ leads: [lead, lead], ip: "addr del 169.254.102.68/32 dev lo" });
  });

  test("nowhere leaves no rule", () => {
    expect(leads(run("none").rules)).toEqual([]);
  });

  test("a node whose pods do not come this way is left alone; an unknown way is an error", () => {
    expect(run("sideways").exitCode).toBe(1);
    rmSync(settings);
    expect(run("holdfast")).toEqual({ exitCode: 0, stderr: "", rules: "", ip: "" });
  });
});

/** What stops the script from being tried on the kernel's own rules. */
const FORMS = ["nft", "iptables"] as const;
const missing = ["ip", "sysctl", "iptables", "ip6tables", "nft"].filter((name) => Bun.which(name) === null);
const whyNot = process.getuid?.() !== 0 ? "needs root" : missing.length > 0 ? `no ${missing.join(", ")}` : undefined;

describe.skipIf(whyNot !== undefined)(`on the kernel's own rules${whyNot === undefined ? "" : ` (${whyNot})`}`, () => {
  const suffix = randomBytes(3).toString("hex");
  const [node, pod] = [`hfp-${suffix}-node`, `hfp-${suffix}-pod`];
  const within = (namespace: string, ...command: string[]) => {
    const done = Bun.spawnSync(["ip", "netns", "exec", namespace, ...command], { timeout: 20_000 });
    return `${done.stdout.toString()}${done.stderr.toString()}`.trim();
  };
  const ip = (...args: string[]) => {
    const { exitCode, stderr } = Bun.spawnSync(["ip", ...args]);
    if (exitCode !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr.toString()}`);
  };
  beforeAll(() => {
    for (const name of [node, pod]) {
      ip("netns", "add", name);
      ip("-n", name, "link", "set", "lo", "up");
    }
    ip("link", "add", "way0", "netns", node, "type", "veth", "peer", "name", "way1", "netns", pod);
    for (const [name, device, last] of [
      [node, "way0", 1],
      [pod, "way1", 2],
    ] as const) {
      ip("-n", name, "addr", "add", `10.9.9.${last}/24`, "dev", device);
      ip("-n", name, "addr", "add", `fd99::${last}/64`, "dev", device, "nodad");
      ip("-n", name, "link", "set", device, "up");
      ip("-n", name, "route", "add", "default", ...(name === pod ? ["via", "10.9.9.1"] : ["dev", device]));
      ip("-n", name, "-6", "route", "add", "default", ...(name === pod ? ["via", "fd99::1"] : ["dev", device]));
    }
    within(node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
  });
  afterAll(() => {
    for (const name of [node, pod]) Bun.spawnSync(["ip", "netns", "del", name]);
  });

  test.each(["10.96.0.1", "fd00:10:96::1"].flatMap((address) => FORMS.map((form) => [address, form] as const)))(
    "%s by %s: the node and a pod come to us, and nobody does any more when the way is taken away",
    async (serviceAddress, form) => {
      const found = podWayFrom(serviceAddress);
      const settings = join(folder, `${form}.env`);
      writeFileSync(settings, podWaySettings(found, "https://10.0.0.2:6443"));
      const lead = (where: string) =>
        within(
          node,
          "env",
          `HOLDFAST_POD_WAY=${settings}`,
          ...(form === "nft" ? [] : ["NFT=nonesuch"]),
          "sh",
          script,
          where,
        );
      expect(lead("holdfast")).toBe("");
      // A second time changes nothing.
      expect(lead("holdfast")).toBe("");
      const local = parseHostPort(found.listen)!;
      const serve = `Bun.listen({ hostname: "${local.host}", port: ${local.port}, socket: { open: (s) => s.end("ours"), data() {} } });`;
      const server = Bun.spawn(["ip", "netns", "exec", node, process.execPath, "-e", serve]);
      const ask = `const { promise, resolve } = Promise.withResolvers(); setTimeout(resolve, 2000, "nobody");
        Bun.connect({ hostname: "${serviceAddress}", port: 10268, socket: { data: (_, b) => resolve(b.toString()), connectError: () => resolve("nobody") } }).catch(() => resolve("nobody"));
        console.log(await promise); process.exit();`;
      const asked = (namespace: string) => within(namespace, process.execPath, "-e", ask);
      try {
        await eventually(() => asked(node) === "ours");
        await eventually(() => asked(pod) === "ours");
        expect(lead("none")).toBe("");
        expect([asked(node), asked(pod)]).toEqual(["nobody", "nobody"]);
        expect(within(node, "nft", "list", "ruleset")).not.toContain("10268");
      } finally {
        server.kill();
        await server.exited;
      }
    },
    60_000,
  );
});

test("a listen that is no address is said with its field", () => {
  expect(() => podServer({ ...way, listen: "nowhere" })).toThrow(/podAccess\.listen is "nowhere"/);
});

test("the settings: the API server's port is https' own where it names none, an address of IPv6 without brackets", () => {
  expect(podWaySettings(way, "https://api.example.com")).toContain("API_SERVER=api.example.com\nAPI_PORT=443\n");
  expect(podWaySettings(way, "https://[fd00::2]:6443")).toContain("API_SERVER=fd00::2\nAPI_PORT=6443\n");
  expect(podServer(way)).toBe("https://10.96.0.1:10268");
});
