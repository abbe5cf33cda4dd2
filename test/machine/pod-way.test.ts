import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { podServer, podWaySettings } from "../../src/machine/pod-way.ts";

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

test("the settings: the API server's port is https' own where it names none, an address of IPv6 without brackets", () => {
  expect(podWaySettings(way, "https://api.example.com")).toContain("API_SERVER=api.example.com\nAPI_PORT=443\n");
  expect(podWaySettings(way, "https://[fd00::2]:6443")).toContain("API_SERVER=fd00::2\nAPI_PORT=6443\n");
  expect(podServer(way)).toBe("https://10.96.0.1:10268");
});
