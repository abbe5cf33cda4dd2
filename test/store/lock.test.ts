import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { StateFolderLockedError } from "../../src/store/lock.ts";
import { Bench, filesUnder, item, listedScope } from "./support.ts";

const MAIN = join(import.meta.dir, "..", "..", "src", "main.ts");

/** A process that has the folder and writes in it until it is killed. */
async function startHolder(stateDir: string) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "kill-writer.ts"), stateDir], { stdout: "pipe" });
  await child.stdout.getReader().read();
  return child;
}

function contents(dir: string): ReadonlyMap<string, string> {
  return new Map(filesUnder(dir).map((path) => [path, readFileSync(path).toString("base64")]));
}

/** Starts `run` and reads its log up to a line, or to its end. */
async function run(args: readonly string[]) {
  const child = Bun.spawn([process.execPath, MAIN, "run", ...args], { stderr: "pipe", stdout: "ignore" });
  const reader = child.stderr.getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done || text.includes('"message":"serving"')) break;
    text += Buffer.from(value).toString();
  }
  return { child, text };
}

describe("the lock on a state folder", () => {
  test("is refused to a second process, with the first one's pid, before a byte is touched; a killed owner has it no more", async () => {
    using bench = new Bench();
    const holder = await startHolder(bench.dir);
    // Standing still it changes nothing meanwhile.
    process.kill(holder.pid, "SIGSTOP");
    const before = contents(bench.dir);
    const open = () => bench.open();
    expect(open).toThrow(StateFolderLockedError);
    expect(open).toThrow(`Cannot use the state folder "${bench.dir}": process ${holder.pid} uses it`);
    expect(contents(bench.dir)).toEqual(before);
    holder.kill("SIGKILL");
    await holder.exited;
    expect(bench.open().status().mode).toBe("disk");
  });

  test("is refused within one process, too, and can be had again once the store is closed", () => {
    using bench = new Bench();
    const store = bench.open();
    listedScope(store, [item("a", 1)]);
    expect(() => bench.open()).toThrow(`process ${process.pid} uses it`);
    expect(bench.open({ isReadOnly: true }).copies()).toHaveLength(1);
    store.close();
    expect(bench.open().copies()).toHaveLength(1);
  });

  test("survives its own file torn by a power cut", () => {
    using bench = new Bench();
    for (const torn of [
      crypto.getRandomValues(Buffer.alloc(4_096)),
      Buffer.alloc(4_096, 7),
      Buffer.from("SQLite format 3\0"),
    ]) {
      writeFileSync(join(bench.dir, "lock"), torn);
      const store = bench.open();
      expect(store.status().mode).toBe("disk");
      expect(() => bench.open()).toThrow(StateFolderLockedError);
      store.close();
    }
  });

  test("that cannot be made leaves the folder to whoever can: the store stays in memory", () => {
    using bench = new Bench();
    listedScope(bench.open(), [item("a", 1)]);
    bench.closeAll();
    const before = readFileSync(bench.file);
    rmSync(join(bench.dir, "lock"));
    // A socket or a folder in its place.
    const inTheWay = mkdtempSync(join(bench.dir, "x-"));
    Bun.spawnSync(["mv", inTheWay, join(bench.dir, "lock")]);
    const store = bench.open();
    expect(store.status().mode).toBe("memory");
    expect(store.copies()).toHaveLength(1);
    bench.clock.pass(60_000);
    expect(store.status().mode).toBe("memory");
    expect(readFileSync(bench.file).equals(before)).toBe(true);
    rmSync(join(bench.dir, "lock"), { recursive: true });
    bench.clock.pass(60_000);
    expect(store.status().mode).toBe("disk");
    expect(() => bench.open()).toThrow(StateFolderLockedError);
  });

  test("ends a second `run` on other ports at once, in words", async () => {
    await using apiServer = await startApiServer();
    const folder = mkdtempSync(join(tmpdir(), "holdfast-test-lock-"));
    const kubeconfig = join(folder, "kubeconfig");
    const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
    writeFileSync(kubeconfig, apiServer.kubeconfig({ user: "admin", keyPair: pair }));
    const [stateDir, ports] = [join(folder, "state"), ["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]];
    const args = ["--kubeconfig", kubeconfig, "--state-dir", stateDir, ...ports];
    const runs = [await run(args), await run(args)];
    const [first, second] = runs as [(typeof runs)[0], (typeof runs)[0]];
    try {
      expect(first.text).toContain('"message":"serving"');
      expect(second.text).not.toContain("serving");
      expect(second.text).toContain(`process ${first.child.pid} uses it`);
      expect(second.text).toContain("Try: holdfast status --state-dir");
      expect(await second.child.exited).toBe(1);
      expect(first.child.exitCode).toBeNull();
    } finally {
      for (const { child } of runs) {
        child.kill("SIGTERM");
        await child.exited;
      }
      rmSync(folder, { recursive: true });
    }
  });
});
