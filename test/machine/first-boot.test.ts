import { afterAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mountsOf } from "../../src/machine/image/boot-folders.ts";
import { decoded, dropInsIn, readDropIn, shred } from "../../src/machine/image/drop-in.ts";
import { firstBoot, type FirstBootPorts } from "../../src/machine/image/first-boot.ts";
import { DeviceJoinError } from "../../src/machine/join-device.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-first-boot-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TOKEN = "abcdef.0123456789abcdef";
const TEXT = `apiServer: 10.0.0.2:6443\ntoken: ${TOKEN}\n`;

describe("a drop-in as laptops write it", () => {
  const utf16 = (text: string) => Buffer.from(`\ufeff${text}`, "utf16le");
  test.each([
    ["plain", Buffer.from(TEXT)],
    ["CRLF and a byte order mark (Notepad)", Buffer.from(`\ufeff${TEXT.replaceAll("\n", "\r\n")}`)],
    ["old Macintosh line ends", Buffer.from(TEXT.replaceAll("\n", "\r"))],
    ['UTF-16, little end first (Notepad\'s "Unicode")', utf16(TEXT)],
    ["UTF-16, big end first", utf16(TEXT).swap16()],
  ])("%s", (_, bytes) => {
    expect(decoded(bytes)).toBe(TEXT);
  });

  test.each([
    ["a word processor's document", Buffer.of(0x50, 0x4b, 3, 4, 0, 0, 0xff), "no plain text"],
    ["blanks", Buffer.from(" \r\n\r\n"), "it is empty"],
    ["nothing", Buffer.alloc(0), "it is empty"],
  ])("%s is refused in words", (_, bytes, words) => {
    expect(() => decoded(bytes)).toThrow(words);
  });

  test("one of a hundred kilobytes is not read", () => {
    const path = join(folder, "large");
    writeFileSync(path, "#".repeat(100_000));
    expect(() => readDropIn(path)).toThrow("are too many");
  });

  test("its name in any case, with .txt or as .yml; the plain one first, links and others never", () => {
    const boot = mkdtempSync(join(folder, "boot-"));
    for (const name of [
      "HOLDFAST-JOIN.YAML",
      "holdfast-join.yaml.txt",
      "holdfast-join.yaml",
      "holdfast-join.yml",
      "._holdfast-join.yaml",
      "config.txt",
    ])
      writeFileSync(join(boot, name), TEXT);
    symlinkSync("/etc/passwd", join(boot, "Holdfast-join.yaml"));
    expect(dropInsIn(boot).map((path) => path.slice(boot.length + 1))).toEqual([
      "holdfast-join.yaml",
      "HOLDFAST-JOIN.YAML",
      "holdfast-join.yaml.txt",
      "holdfast-join.yml",
    ]);
  });

  test("shredding writes over the bytes in place before the name goes", () => {
    const path = join(folder, "holdfast-join.yaml");
    writeFileSync(path, TEXT);
    // A second name of the same blocks shows what becomes of them.
    linkSync(path, join(folder, "same-blocks"));
    shred(path);
    expect(existsSync(path)).toBe(false);
    expect(readFileSync(join(folder, "same-blocks"), "latin1")).not.toContain(TOKEN);
    expect(() => shred(path)).not.toThrow();
  });
});

test("the kernel's list of mounts, blanks in names included", () => {
  const mounts = mountsOf("/dev/vda1 /boot/efi vfat ro 0 0\n/dev/sda1 /media/my\\040stick vfat rw 0 0\n");
  expect([...mounts]).toEqual([
    ["/boot/efi", "/dev/vda1"],
    ["/media/my stick", "/dev/sda1"],
  ]);
});

/** A device without a cluster: its folders, and what each try to join comes to. */
class Device {
  readonly stateDir = mkdtempSync(join(folder, "state-"));
  readonly boot = mkdtempSync(join(folder, "boot-"));
  readonly said: string[] = [];
  readonly tried: string[] = [];
  isReadOnly = false;
  released = 0;
  mounted = 0;
  nowMs = 0;

  constructor(
    /** Called at each wait; throws to end the device's power. */
    private readonly onWait: (device: Device) => void,
    private readonly outcome: (text: string) => Error | undefined = () => undefined,
  ) {}

  drop(text: string, name = "holdfast-join.yaml"): void {
    writeFileSync(join(this.boot, name), text);
  }

  ports(): FirstBootPorts {
    return {
      stateDir: this.stateDir,
      folders: () => {
        this.mounted += 1;
        const failing = () => {
          if (this.isReadOnly) throw Object.assign(new Error("read-only"), { code: "EROFS" });
        };
        return [
          { path: this.boot, makeWritable: failing, scrub: () => undefined, release: () => void (this.released += 1) },
        ];
      },
      join: async (text) => {
        this.tried.push(text);
        const error = this.outcome(text);
        if (error !== undefined) throw error;
        return { nodeName: "gw-1", server: "https://10.0.0.2:6443" };
      },
      say: (line) => void this.said.push(line),
      nowMs: () => this.nowMs,
      wait: async (ms) => {
        this.nowMs += ms;
        if (this.nowMs > 3_600_000) throw new Error("waited for an hour");
        this.onWait(this);
      },
    };
  }

  has(name: string): boolean {
    return existsSync(join(this.stateDir, name));
  }
}

describe("first boot", () => {
  test("waits for a drop-in, says so once, joins, and leaves nothing of it", async () => {
    const device = new Device((one) => {
      if (one.nowMs === 20_000) {
        one.drop(`\ufeff${TEXT.replaceAll("\n", "\r\n")}`, "holdfast-join.yaml.txt");
        one.drop(TEXT, "._holdfast-join.yaml");
        one.drop("kept", "config.txt");
      }
    });
    await firstBoot(device.ports());
    expect(device.said).toEqual([
      `waiting for holdfast-join.yaml: none in ${device.boot}. Put one on the card's boot partition, or on a FAT partition labelled HOLDFAST`,
      "joined https://10.0.0.2:6443 as node gw-1",
    ]);
    expect(device.tried).toEqual([TEXT]);
    expect(readdirSync(device.boot)).toEqual(["config.txt"]);
    expect(device.has("first-boot.done")).toBe(true);
    expect(device.released).toBe(device.mounted);
  });

  test("a drop-in at fault is named once and not tried again until it changes", async () => {
    const device = new Device(
      (one) => {
        if (one.nowMs === 300_000) one.drop(TEXT);
      },
      (text) =>
        text === TEXT ? undefined : new DeviceJoinError('Cannot use holdfast-join.yaml:1: unknown field "tokn"', true),
    );
    device.drop(`tokn: ${TOKEN}\n`);
    await firstBoot(device.ports());
    expect(device.tried).toHaveLength(2);
    expect(device.said).toEqual([
      'Cannot use holdfast-join.yaml:1: unknown field "tokn". Write it anew on any computer; it is read again when it changes',
      "joined https://10.0.0.2:6443 as node gw-1",
    ]);
  });

  test("one that may have been early, as a token that comes to be later, is tried again after ten minutes", async () => {
    let isThere = false;
    const device = new Device(
      (one) => void (isThere = one.nowMs >= 60_000),
      () => (isThere ? undefined : new DeviceJoinError("the token is unknown there", true)),
    );
    device.drop(TEXT);
    await firstBoot(device.ports());
    expect(device.tried).toHaveLength(2);
    expect(device.nowMs).toBe(600_000);
  });

  test("without a link it tries again, more and more rarely, and says so once", async () => {
    let tries = 0;
    const device = new Device(
      () => undefined,
      () => (++tries < 8 ? new DeviceJoinError("https://10.0.0.2:6443 does not answer", false) : undefined),
    );
    device.drop(TEXT);
    await firstBoot(device.ports());
    expect(device.nowMs).toBe(5_000 + 10_000 + 20_000 + 40_000 + 60_000 * 3);
    expect(device.said).toHaveLength(2);
  });

  test("what no one can read is named; nothing of its content is said, of errors nobody foresaw neither", async () => {
    const device = new Device(
      (one) => one.drop(TEXT),
      () => (device.tried.length === 1 ? new Error(`boom ${TOKEN}`) : undefined),
    );
    writeFileSync(join(device.boot, "holdfast-join.yaml"), Buffer.of(0xff, 0, 0xff));
    await firstBoot(device.ports());
    expect(device.said[0]).toContain("no plain text");
    expect(device.said.join("\n")).not.toContain(TOKEN);
  });

  test("power that goes between joining and shredding: the next boot shreds, and does not join again", async () => {
    const device = new Device(() => {
      throw new Error("power");
    });
    device.drop(TEXT);
    device.isReadOnly = true;
    await expect(firstBoot(device.ports())).rejects.toThrow("power");
    expect(device.has("first-boot.joined")).toBe(true);
    expect(device.has("first-boot.done")).toBe(false);
    expect(device.said.at(-1)).toContain("its token is still on the boot partition");
    device.isReadOnly = false;
    await firstBoot(device.ports());
    expect(device.tried).toHaveLength(1);
    expect(readdirSync(device.boot)).toEqual([]);
    expect(device.has("first-boot.done")).toBe(true);
    expect(statSync(join(device.stateDir, "first-boot.done")).mode & 0o777).toBe(0o600);
  });
});
