/**
 * The units under a systemd that is PID 1: this machine's /usr in a booted
 * container with an empty /etc, no network, and our units in it.
 */

import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { unitFiles } from "../../src/machine/units.ts";

const binary = join(import.meta.dir, "../../dist", `holdfast-linux-${process.arch}`);
const missing = [
  ...(process.getuid?.() === 0 ? [] : ["root"]),
  ...["systemd-nspawn", "unshare", "systemd-creds"].filter((program) => Bun.which(program) === null),
  ...(Bun.which("unshare") !== null && Bun.spawnSync(["unshare", "-m", "true"]).exitCode !== 0
    ? ["mount namespaces"]
    : []),
  ...[binary, "/usr/lib/systemd/systemd"].filter((path) => !existsSync(path)),
];
const folder = mkdtempSync(join(tmpdir(), "holdfast-booted-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What is asked inside; each answer is a line "NAME: WORDS". */
const PROBE = `exec > /out/said 2> /out/complained
say() { printf '%s: %s\\n' "$1" "$(systemctl show holdfast -p ActiveState --value), $(/opt/hf/holdfast status | sed -n 's/.*sealing key from/key from/p')"; }
say started
pid=$(systemctl show holdfast -p MainPID --value)
echo "capabilities: $(sed -n 's/^CapEff:[[:space:]]*//p' /proc/$pid/status)"
echo "cores: $(sed -n 's/^Max core file size *\\([^ ]*\\) *\\([^ ]*\\).*/\\1 \\2/p' /proc/$pid/limits)"
kill -9 $pid
n=0; while [ $n -lt 100 ]; do /opt/hf/holdfast status > /dev/null 2>&1; [ $? -eq 1 ] || [ "$(systemctl show holdfast -p ActiveState --value)" != active ] || break; n=$((n+1)); sleep 0.1; done
say killed
sealed=/etc/credstore.encrypted/holdfast-seal-key
mkdir -p /etc/credstore.encrypted
head -c 32 /dev/urandom | systemd-creds encrypt --with-key=host --name=holdfast-seal-key - $sealed
systemctl restart holdfast
say sealed
systemctl stop holdfast holdfast-seal-key
echo "left in /run: $(ls /run/credstore)"
echo garbage > $sealed
systemctl start holdfast
say 'another machine'
echo "seal unit: $(systemctl show holdfast-seal-key -p ActiveState --value)"
`;

async function booted(profile: "small" | "default"): Promise<string[]> {
  const at = (name: string) => {
    mkdirSync(join(folder, profile, name), { recursive: true });
    return join(folder, profile, name);
  };
  for (const { path, text } of unitFiles({ profile, binary: "/opt/hf/holdfast" }))
    writeFileSync(join(at("units"), basename(path)), text);
  writeFileSync(
    join(at("units"), "probe.service"),
    `[Unit]\nWants=holdfast.service\nAfter=holdfast.service\n[Service]\nType=oneshot\nExecStart=/bin/sh /out/probe.sh\nExecStopPost=/bin/systemctl poweroff --no-block --force\n`,
  );
  writeFileSync(join(at("out"), "probe.sh"), PROBE);
  const cluster = mintCluster();
  const keyPair = cluster.clientCertificate("system:node:edge1", ["system:nodes"]);
  const kubeconfig = { server: "https://127.0.0.1:6443", user: "system:node:edge1", keyPair };
  writeFileSync(join(at("config"), "kubeconfig"), cluster.kubeconfig(kubeconfig));
  writeFileSync(
    join(at("config"), "config.yaml"),
    "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nkubeconfig: /etc/holdfast/kubeconfig\n",
  );
  chmodSync(at("config"), 0o700);
  copyFileSync(binary, join(at("bin"), "holdfast"));
  const binds = [
    `--bind-ro=${at("units")}:/etc/systemd/system`,
    `--bind=${at("config")}:/etc/holdfast`,
    `--bind-ro=${at("bin")}:/opt/hf`,
    `--bind=${at("out")}:/out`,
  ];
  // The tmpfs is nspawn's own condition; the mount namespace keeps it from this machine.
  const script = `mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn && exec timeout -s KILL 110 systemd-nspawn -q --register=no --keep-unit --private-network --volatile=yes -D / -M ${basename(folder)}-${profile} "$@" -b systemd.firstboot=off systemd.mask=systemd-firstboot.service systemd.unit=probe.service`;
  const child = Bun.spawn(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", ...binds], {
    env: { PATH: process.env["PATH"]!, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: "no" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  await child.exited;
  const said = join(at("out"), "said");
  if (!existsSync(said)) throw new Error(`the container did not get so far: ${out.slice(-2_000)}${err}`);
  return readFileSync(said, "utf8").trim().split("\n");
}

describe.skipIf(missing.length > 0)(
  `units under systemd${missing.length > 0 ? ` (missing: ${missing.join(", ")})` : ""}`,
  () => {
    test.each(["small", "default"] as const)(
      "%s: serves in its sandbox, comes back when killed, takes its sealing key, and starts where that cannot be opened",
      async (profile) => {
        expect(await booted(profile)).toEqual([
          "started: active, key from file",
          "capabilities: 0000000000000000",
          "cores: 1 1",
          "killed: active, key from file",
          "sealed: active, key from credential",
          "left in /run: ",
          "another machine: active, key from file",
          "seal unit: failed",
        ]);
      },
      120_000,
    );
  },
);
