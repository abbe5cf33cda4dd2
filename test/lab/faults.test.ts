/**
 * Faults of a device's link and of its disk, played against the compiled binary
 * before a real API server (rows of docs/faults.md). Whatever the fault: what is
 * kept is answered, the open watch stays open and hears of every change once the
 * fault is over, and nothing is listed anew.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isLong, measured, seconds } from "./node-world.ts";
import { type LabProcess, until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";
import { type Holdfast, startWorld, type World } from "./world.ts";

const NAMESPACE = "shop";
const NAME = "told";
/** So long a person waits for what is kept. */
const ANSWERED_MS = 12_000;
/** So long after the fault a change of it is told. */
const TOLD_MS = 30_000;

/** Ends what was begun. */
type End = () => void | Promise<void>;

/** Rules of a packet filter at the edge, until they are taken away. */
function filter(world: World, chains: string): End {
  nft(world, `table inet lab_fault {\n${chains}\n}`);
  return () => nft(world, "delete table inet lab_fault");
}

function nft(world: World, rules: string): void {
  const done = Bun.spawnSync(world.network.within(world.network.edge, ["nft", "-f", "-"]), {
    stdin: Buffer.from(rules),
    stderr: "pipe",
  });
  if (!done.success) throw new Error(`Cannot set packet filters: ${done.stderr.toString()}`);
}

const hooked = (hook: "input" | "output", rules: string) =>
  `chain ${hook} { type filter hook ${hook} priority 0; policy accept; ${rules}; }`;

/** Local ports of the connections that stand between edge and API server. */
function ports(world: World): string {
  const command = ["ss", "-Htn", "state", "established", "dst", world.network.cloudAddress];
  const lines = Bun.spawnSync(world.network.within(world.network.edge, command)).stdout.toString().split("\n");
  const found = lines.map((line) => /:(\d+) +\S+:6443/.exec(line)?.[1]).filter((port) => port !== undefined);
  if (found.length === 0) throw new Error("Holdfast has no connection to the API server");
  return `{ ${found.join(", ")} }`;
}

/** Nothing of these connections is passed any more, either way; nobody is told. */
const forget = (world: World, standing: string) =>
  filter(world, `${hooked("output", `tcp sport ${standing} drop`)}\n${hooked("input", `tcp dport ${standing} drop`)}`);

/** Something else that takes the API server's connections, those that stand included. */
async function inTheWay(world: World, script: string): Promise<End> {
  const { cloudAddress } = world.network;
  const other = world.startCloudProgram("in-the-way", [process.execPath, "-e", script, cloudAddress]);
  await until("it stands in the way", () => other.log.includes("ready"));
  const ends = filter(
    world,
    `chain led { type nat hook output priority -100; policy accept; ip daddr ${cloudAddress} tcp dport 6443 dnat ip to ${cloudAddress}:8081; }
     ${hooked("output", `tcp sport ${ports(world)} ip daddr ${cloudAddress} reject with tcp reset`)}`,
  );
  return async () => {
    await ends();
    await other.stop("SIGKILL");
  };
}

const PORTAL = `Bun.serve({port: 8081, hostname: "0.0.0.0", fetch: () => Response.redirect("http://login.example/")}); console.log("ready")`;

/** One that has a certificate for the address, of a CA that nobody here knows. */
function interceptor(world: World): string {
  const [key, certificate] = [join(world.directory, "other.key"), join(world.directory, "other.crt")];
  const subject = ["-subj", "/CN=other", "-addext", `subjectAltName=IP:${world.network.cloudAddress}`];
  const files = ["-keyout", key, "-out", certificate];
  const made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  Bun.spawnSync(["openssl", "req", ...made, ...files, ...subject]);
  return answersAll({ certificate, key }, 404, "NotFound");
}

/** A balancer with a certificate of the cluster's, which reaches no API server. */
function balancer(world: World): string {
  const { pki } = world;
  return answersAll(
    { certificate: pki.certificate("apiserver"), key: pki.key("apiserver") },
    503,
    "ServiceUnavailable",
  );
}

function answersAll(own: { readonly certificate: string; readonly key: string }, code: number, reason: string): string {
  const tls = `{cert: Bun.file(${JSON.stringify(own.certificate)}), key: Bun.file(${JSON.stringify(own.key)})}`;
  const status = JSON.stringify({ kind: "Status", apiVersion: "v1", status: "Failure", reason, code });
  return `Bun.serve({port: 8081, hostname: "0.0.0.0", tls: ${tls}, fetch: () => Response.json(${status}, {status: ${code}})}); console.log("ready")`;
}

/** A gateway that hands everything on, and what comes back half a minute late. */
const LATE = `const { connect, createServer } = require("node:net");
createServer((near) => {
  const far = connect(6443, process.argv[1]);
  near.on("error", () => far.destroy()).on("close", () => far.destroy());
  far.on("error", () => near.destroy()).on("close", () => setTimeout(() => near.destroy(), 30_000));
  near.pipe(far);
  far.on("data", (bytes) => setTimeout(() => near.destroyed || near.write(bytes), 30_000));
}).listen(8081, "0.0.0.0", () => console.log("ready"));`;

interface Fault {
  readonly name: string;
  /** How long it lasts. */
  readonly seconds: number;
  /** Played in CI, too. */
  readonly isShort?: boolean;
  begin(world: World, holdfast: Holdfast): End | Promise<End>;
}

/** All that the API server sends, or is sent, is refused. */
const refused = (world: World) =>
  filter(world, hooked("output", `ip daddr ${world.network.cloudAddress} meta l4proto tcp reject with tcp reset`));

const LINK_FAULTS: readonly Fault[] = [
  { name: "every connection is reset", seconds: 8, begin: refused },
  {
    name: "the link flaps",
    seconds: 20,
    begin(world) {
      let end: End | undefined = refused(world);
      const turn = setInterval(() => {
        if (end === undefined) end = refused(world);
        else {
          void end();
          end = undefined;
        }
      }, 700);
      return async () => {
        clearInterval(turn);
        await end?.();
      };
    },
  },
  {
    name: "a balancer that has lost the API server answers 503",
    seconds: 15,
    begin: (world) => inTheWay(world, balancer(world)),
  },
  { name: "every answer is half a minute late", seconds: 40, begin: (world) => inTheWay(world, LATE) },
  {
    name: "what the edge sends is lost",
    seconds: 15,
    begin: (world) => filter(world, hooked("output", `ip daddr ${world.network.cloudAddress} drop`)),
  },
  {
    name: "what the cloud sends is lost",
    seconds: 10,
    isShort: true,
    begin: (world) => filter(world, hooked("input", `ip saddr ${world.network.cloudAddress} drop`)),
  },
  {
    name: "a gateway forgets the connections that stand, and lets new ones pass",
    seconds: 10,
    isShort: true,
    begin: (world) => forget(world, ports(world)),
  },
  {
    name: "packets of more than 600 bytes are lost",
    seconds: 15,
    begin(world) {
      const far = world.network.cloudAddress;
      return filter(
        world,
        `${hooked("output", `ip daddr ${far} meta length > 600 drop`)}\n${hooked("input", `ip saddr ${far} meta length > 600 drop`)}`,
      );
    },
  },
  {
    name: "32 kbit/s",
    seconds: 20,
    async begin(world) {
      const slow = await world.slowDown(50, 0, 4_000);
      return async () => await slow[Symbol.asyncDispose]();
    },
  },
  { name: "a captive portal", seconds: 15, begin: (world) => inTheWay(world, PORTAL) },
  {
    name: "TLS is intercepted, by another CA, with a Status that refuses",
    seconds: 10,
    isShort: true,
    begin: (world) => inTheWay(world, interceptor(world)),
  },
];

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("faults", whyWithoutHoldfast), () => {
  let world: World;
  let token: string;
  let changes = 0;
  beforeAll(async () => {
    world = await startWorld();
    await world.createNamespace(NAMESPACE);
    token = await world.tokenFor("person", ["*"]);
    await change();
  }, 120_000);
  afterAll(async () => await world?.[Symbol.asyncDispose]());

  /** @returns the value that it has from now on. */
  async function change(): Promise<string> {
    const value = `value-${++changes}`;
    const metadata = { name: NAME, namespace: NAMESPACE };
    await world.apply({ apiVersion: "v1", kind: "ConfigMap", metadata, data: { value } });
    return value;
  }

  /** A person who has listed, and watches. */
  async function follow({ stateDir }: Holdfast) {
    const kubeconfig = world.proxyKubeconfig(stateDir, { token });
    const shown = ["-n", NAMESPACE, "-o", 'jsonpath={.data.value}{"\\n"}'];
    const watch: LabProcess = world.startKubectl(["get", "configmap", NAME, "--watch", ...shown], kubeconfig);
    const told = watch.hear();
    await until("the watch shows what is there", () => told().includes(`value-${changes}`));
    const read = async () => {
      const answer = await world.kubectl(["get", "configmap", NAME, ...shown], { kubeconfig, timeoutMs: 40_000 });
      return { ...answer, value: answer.stdout.trim() };
    };
    // Kept, and followed.
    await until("it is read", async () => (await read()).value === `value-${changes}`);
    return { watch, told, read };
  }

  /** What counts when it is over. */
  async function isOver(name: string, { watch, told, read }: Awaited<ReturnType<typeof follow>>, value: string) {
    const overMs = performance.now();
    await until(`a change of that time is told (${name})`, () => told().includes(value), TOLD_MS);
    await until(`it is read (${name})`, async () => (await read()).value === value, TOLD_MS);
    const last = await change();
    await until(`a change of now is told (${name})`, () => told().includes(last), TOLD_MS);
    expect(watch.isRunning).toBe(true);
    return performance.now() - overMs;
  }

  describe("of the link", () => {
    let holdfast: Holdfast;
    let person: Awaited<ReturnType<typeof follow>>;
    beforeAll(async () => {
      holdfast = await world.startHoldfast();
      person = await follow(holdfast);
    }, 60_000);
    afterAll(async () => await holdfast?.stop());

    for (const { name, seconds: lastsSeconds, isShort = false, begin } of LINK_FAULTS)
      test.skipIf(!isLong && !isShort)(
        name,
        async () => {
          const mark = world.audit.mark();
          const beganMs = performance.now();
          const end = await begin(world, holdfast);
          const first = await person.read();
          const value = await change();
          await Bun.sleep(Math.max(0, lastsSeconds * 1_000 - (performance.now() - beganMs)));
          const second = await person.read();
          await end();
          const tookMs = await isOver(name, person, value);
          measured(
            `${name}: read at once, read later, whole again`,
            [first.tookMs, second.tookMs, tookMs].map(seconds).join(", "),
          );
          expect([first.exitCode, second.exitCode]).toEqual([0, 0]);
          expect(Math.max(first.tookMs, second.tookMs)).toBeLessThan(ANSWERED_MS);
          expect(world.audit.fullReadsSince(mark, "configmaps").map(({ uri }) => uri)).toEqual([]);
        },
        150_000,
      );
  });

  test("a gateway forgets the connections that stand: what no copy holds is read, and a write is answered", async () => {
    const stateDir = join(world.directory, "state-forgotten");
    const holdfast = await world.startHoldfast({ stateDir });
    const person = await follow(holdfast);
    const kubeconfig = world.proxyKubeconfig(stateDir, { token });
    const asked = (...args: string[]) => world.kubectl([...args, "-n", NAMESPACE], { kubeconfig, timeoutMs: 40_000 });
    const unseen = (at: number) =>
      asked("get", "--raw", `/apis/apps/v1/namespaces/${NAMESPACE}/deployments?limit=${at}`);
    expect((await unseen(7)).exitCode).toBe(0);
    expect((await asked("label", "configmap", NAME, "step=1")).exitCode).toBe(0);
    const end = forget(world, ports(world));
    const read = await unseen(8);
    await end();
    // The next ones, of which one has answered meanwhile.
    const again = forget(world, ports(world));
    const refused = await asked("label", "configmap", NAME, "step=2", "--overwrite");
    const taken = await asked("label", "configmap", NAME, "step=3", "--overwrite");
    await again();
    measured(
      "a gateway forgets: a read that no copy holds, a write, the next write",
      [read, refused, taken].map(({ tookMs }) => seconds(tookMs)).join(", "),
    );
    expect([read.exitCode, taken.exitCode]).toEqual([0, 0]);
    // Nobody knows whether it arrived: it is never sent twice.
    expect([0, 1]).toContain(refused.exitCode ?? -1);
    expect(Math.max(read.tookMs, refused.tookMs, taken.tookMs)).toBeLessThan(20_000);
    await isOver("forgotten", person, await change());
    await holdfast.stop();
  }, 120_000);

  describe("of the machine", () => {
    /** With the state on a file system of its own. */
    async function onDisk(options: string, act: (stateDir: string) => Promise<void>): Promise<void> {
      const disk = join(world.directory, "disk");
      mkdirSync(disk, { recursive: true });
      const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]);
      expect(mounted.exitCode).toBe(0);
      try {
        await act(join(disk, "state"));
      } finally {
        Bun.spawnSync(["umount", "--lazy", disk]);
        rmSync(disk, { recursive: true, force: true });
      }
    }

    /** What is known is shown while the disk cannot be written, cut or not, and kept once it can. */
    async function withoutWrites(name: string, stateDir: string, begin: (pid: number) => End | Promise<End>) {
      const holdfast = await world.startHoldfast({ stateDir });
      const person = await follow(holdfast);
      const end = await begin(holdfast.process.pid);
      const values = [await change(), await change()];
      await until("changes are told all the same", () => person.told().includes(values[1]!));
      world.cut();
      const cut = await person.read();
      world.heal();
      await end();
      const tookMs = await isOver(name, person, values[1]!);
      measured(`${name}: read while cut; whole again after`, [cut.tookMs, tookMs].map(seconds).join(", "));
      expect([cut.exitCode, cut.value]).toEqual([0, values[1]!]);
      // Another process finds it: what was only in memory moves back within a minute.
      const { log } = holdfast.process;
      if (log.includes("carrying on in memory"))
        await until("the disk is written again", () => holdfast.process.log.includes("can be written again"), 90_000);
      await Bun.sleep(1_500);
      await person.watch.stop();
      await holdfast.stop("SIGKILL");
      world.cut();
      const again = await world.startHoldfast({ stateDir });
      const kept = await world.kubectl(["get", "configmap", NAME, "-n", NAMESPACE, "-o", "jsonpath={.data.value}"], {
        kubeconfig: world.proxyKubeconfig(stateDir, { token }),
      });
      world.heal();
      await again.stop();
      expect([kept.exitCode, kept.stdout]).toEqual([0, `value-${changes}`]);
    }

    const filled = (name: string, options: string, fill: (ballast: string) => void) =>
      test.skipIf(!isLong)(
        name,
        async () => {
          await onDisk(options, (stateDir) =>
            withoutWrites(name, stateDir, () => {
              const ballast = join(stateDir, "../ballast");
              fill(ballast);
              return () => rmSync(ballast, { recursive: true });
            }),
          );
        },
        180_000,
      );
    filled("no room on the disk", "size=16m", (ballast) => {
      const { bavail, bsize } = statfsSync(join(ballast, ".."));
      writeFileSync(ballast, Buffer.alloc(Number(bavail) * Number(bsize)));
    });
    filled("no inode on the disk", "size=16m,nr_inodes=64", (ballast) => {
      mkdirSync(ballast);
      for (let i = 0; ; i++)
        try {
          writeFileSync(join(ballast, `${i}`), "");
        } catch {
          break;
        }
    });

    const tampered = (name: string, injection: string) =>
      test.skipIf(Bun.which("strace") === null)(
        name,
        async () => {
          const stateDir = join(world.directory, `state-${changes}`);
          await withoutWrites(name, stateDir, async (pid) => {
            const traced = join(world.directory, "strace.log");
            const injected = ["-e", "trace=fsync,fdatasync", "-e", `inject=fsync,fdatasync:${injection}`];
            const strace = Bun.spawn(["strace", "-f", "-p", `${pid}`, "-o", traced, ...injected], {
              stdout: "ignore",
              stderr: "ignore",
            });
            await Bun.sleep(1_000);
            const kubeconfig = world.proxyKubeconfig(stateDir, { token });
            const all = world.startKubectl(["get", "configmaps", "-n", NAMESPACE, "-w", "-o", "name"], kubeconfig);
            const told = all.hear();
            // More than SQLite lets its log grow to before it syncs.
            const big = Array.from({ length: 24 }, (_, i) => `big-${i}-${changes}`);
            await world.apply(
              ...big.map((one) => ({
                apiVersion: "v1",
                kind: "ConfigMap",
                metadata: { name: one, namespace: NAMESPACE },
                data: { noise: randomBytes(300_000).toString("base64") },
              })),
            );
            await until("all of it has come", () => big.every((one) => told().includes(one)));
            await until(
              "something was to be synced",
              () => /INJECTED|DELAYED/.test(readFileSync(traced, "utf8")),
              20_000,
            );
            await all.stop();
            return async () => {
              strace.kill("SIGINT");
              await strace.exited;
            };
          });
        },
        180_000,
      );
    tampered("fsync fails", "error=EIO");
    if (isLong) tampered("fsync takes two seconds", "delay_enter=2s");

    test("sixty-four descriptors, and two hundred that connect", async () => {
      const holdfast = await world.startHoldfast({ stateDir: join(world.directory, "state-few") });
      const person = await follow(holdfast);
      Bun.spawnSync(["prlimit", "--pid", `${holdfast.process.pid}`, "--nofile=64:64"]);
      const script = `const { connect } = require("node:net"); for (let i = 0; i < 200; i++) connect(10268, "127.0.0.1").on("error", () => {}); setTimeout(() => process.exit(0), 10_000); console.log("ready")`;
      const crowd = world.startAtEdge("crowd", [process.execPath, "-e", script]);
      await Bun.sleep(2_000);
      const value = await change();
      await until("the watch that stands hears of it", () => person.told().includes(value), 10_000);
      await crowd.stop("SIGKILL");
      measured("sixty-four descriptors: whole again after", seconds(await isOver("descriptors", person, value)));
      await holdfast.stop();
    }, 120_000);

    test.skipIf(!isLong)(
      "killed in the middle of everything, and started while cut",
      async () => {
        const stateDir = join(world.directory, "state-killed");
        const holdfast = await world.startHoldfast({ stateDir });
        const person = await follow(holdfast);
        const value = await change();
        await until("a change is told", () => person.told().includes(value));
        // Written within a second.
        await Bun.sleep(2_500);
        world.cut();
        await holdfast.stop("SIGKILL");
        const again = await world.startHoldfast({ stateDir });
        const kept = await person.read();
        const mark = world.audit.mark();
        const missed = await change();
        world.heal();
        const healedMs = performance.now();
        await until("what was missed is read", async () => (await person.read()).value === missed, TOLD_MS);
        measured("killed: whole again after", seconds(performance.now() - healedMs));
        expect([kept.exitCode, kept.value]).toEqual([0, value]);
        expect(world.audit.fullReadsSince(mark, "configmaps").map(({ uri }) => uri)).toEqual([]);
        await person.watch.stop();
        await again.stop();
      },
      120_000,
    );

    test.skipIf(!isLong)(
      "its files are removed under it",
      async () => {
        const stateDir = join(world.directory, "state-removed");
        const holdfast = await world.startHoldfast({ stateDir });
        const person = await follow(holdfast);
        const file = join(stateDir, "cache.db");
        for (const suffix of ["", "-wal", "-shm"]) rmSync(file + suffix, { force: true });
        const first = await change();
        await until("a change is told all the same", () => person.told().includes(first));
        // Looked for once a minute, when something is written.
        await Bun.sleep(61_000);
        const value = await change();
        await until("there is a file again", () => existsSync(file), 20_000);
        measured("its files are removed: whole again after", seconds(await isOver("removed", person, value)));
        await Bun.sleep(2_500);
        await person.watch.stop();
        await holdfast.stop("SIGKILL");
        world.cut();
        const again = await world.startHoldfast({ stateDir });
        const kept = await person.read();
        world.heal();
        await again.stop();
        expect([kept.exitCode, kept.value]).toEqual([0, `value-${changes}`]);
      },
      240_000,
    );

    test.skipIf(!isLong)(
      "stopped for half a minute",
      async () => {
        const holdfast = await world.startHoldfast({ stateDir: join(world.directory, "state-stopped") });
        const person = await follow(holdfast);
        const mark = world.audit.mark();
        process.kill(holdfast.process.pid, "SIGSTOP");
        const value = await change();
        await Bun.sleep(30_000);
        process.kill(holdfast.process.pid, "SIGCONT");
        measured("stopped for half a minute: whole again after", seconds(await isOver("stopped", person, value)));
        expect(world.audit.fullReadsSince(mark, "configmaps")).toEqual([]);
        await holdfast.stop();
      },
      120_000,
    );
  });
});
