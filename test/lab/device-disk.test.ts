/**
 * The disk that loses power, asked by QEMU's own client: what was flushed
 * stays, what was not is old, new, or both by sectors.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceDisk, draws, type PowerLoss } from "./device-disk.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-disk-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const why = Bun.which("qemu-io") === null ? "qemu-io is not installed (package qemu-utils)" : undefined;

describe.skipIf(why !== undefined)(`a disk that loses power${why === undefined ? "" : ` [skipped: ${why}]`}`, () => {
  let count = 0;

  /** Writes with QEMU's client, and ends it without a word to the disk where a cut is to follow. */
  async function written(disk: DeviceDisk, ...commands: string[]): Promise<string> {
    const socket = join(folder, `disk-${count++}`);
    disk.listen(socket);
    const url = `nbd+unix:///?socket=${socket}`;
    // A last command that never ends: leaving in good order would flush.
    const args = [...commands, "sleep 60000"].flatMap((command) => ["-c", command]);
    const client = Bun.spawn(["qemu-io", "-f", "raw", "-t", "writeback", ...args, url], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const seen = disk.requests + commands.length;
    for (let waited = 0; disk.requests < seen && waited < 20_000; waited += 20) await Bun.sleep(20);
    client.kill("SIGKILL");
    await client.exited;
    return await client.stdout.text();
  }

  function disk(): DeviceDisk {
    const image = join(folder, `image-${count++}`);
    writeFileSync(image, Buffer.alloc(2 ** 20, "o"));
    return new DeviceDisk(image);
  }

  test.each(["forgets", "tears"] as const)("that %s keeps what was flushed, or asked to be durable", async (kind) => {
    using one = disk();
    await written(one, "write -P 0x6e 0 64k", "flush", "write -f -P 0x66 128k 4k");
    one.losePower(kind, draws(1));
    expect(one.contains("n".repeat(65_536), 0, 65_536)).toBe(true);
    expect(one.contains("f".repeat(4_096), 131_072, 135_168)).toBe(true);
  });

  test("that forgets has lost what was not", async () => {
    using one = disk();
    await written(one, "write -P 0x6e 0 64k");
    expect(one.contains("n")).toBe(true);
    expect(one.losePower("forgets", draws(1))).toBe(16);
    expect(one.contains("n")).toBe(false);
  });

  test("that lies about its flushes loses what was flushed, and shows what it would lose while it runs", async () => {
    using one = disk();
    await written(one, "write -P 0x6e 0 64k", "flush");
    const whole = (kind: "honest" | "lying") => {
      const path = join(folder, `part-${count++}`);
      writeFileSync(path, Buffer.alloc(2 ** 20, "o"));
      DeviceDisk.lay(one.afterCut("forgets", draws(1), kind), path, 0, 2 ** 20);
      return readFileSync(path).subarray(0, 65_536).toString();
    };
    expect(whole("honest")).toBe("n".repeat(65_536));
    expect(whole("lying")).toBe("o".repeat(65_536));
    expect(one.contains("n".repeat(65_536), 0, 65_536)).toBe(true);
  });

  test("that tears leaves blocks old, new, and mixed by whole sectors, never a third thing", async () => {
    using one = disk();
    await written(one, "write -P 0x6e 0 256k");
    one.losePower("tears" satisfies PowerLoss, draws(7));
    const kinds = new Set<string>();
    for (let block = 0; block < 64; block += 1) {
      let pattern = "";
      for (let sector = 0; sector < 8; sector += 1) {
        const at = block * 4_096 + sector * 512;
        const [isOld, isNew] = ["o", "n"].map((letter) => one.contains(letter.repeat(512), at, at + 512));
        expect(isOld).not.toBe(isNew!);
        pattern += isOld ? "o" : "n";
      }
      kinds.add(/^o+$/.test(pattern) ? "old" : /^n+$/.test(pattern) ? "new" : "mixed");
    }
    expect([...kinds].sort()).toEqual(["mixed", "new", "old"]);
  });
});
