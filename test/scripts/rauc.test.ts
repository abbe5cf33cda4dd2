/**
 * The two slots under RAUC: the script that turns them by itself, under each
 * shell, and a signed bundle that RAUC itself installs into the slot that does
 * not run, on slots that are files.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toolPath } from "../../scripts/images/tools.ts";

const SCRIPTS = join(import.meta.dir, "../../scripts/images/rauc");
const folder = mkdtempSync(join(tmpdir(), "holdfast-rauc-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;

/** A boot partition and a place for states. */
function device() {
  const root = join(folder, String((count += 1)));
  for (const path of ["boot/loader", "boot/slot-a", "boot/slot-b"]) mkdirSync(join(root, path), { recursive: true });
  writeFileSync(join(root, "boot/loader/loader.conf"), "default slot-a.conf\ntimeout 0\n");
  writeFileSync(join(root, "cmdline"), "BOOT_IMAGE=x root=PARTLABEL=root-a ro quiet\n");
  const env = {
    ...process.env,
    HOLDFAST_BOOT: join(root, "boot"),
    HOLDFAST_SLOT_STATES: join(root, "states"),
    HOLDFAST_CMDLINE: join(root, "cmdline"),
  };
  return { root, env };
}

const shells = [["dash"], ["busybox", "sh"]].filter(([shell]) => Bun.which(shell!) !== null);

describe.each(shells)("slot.sh under %s %s", (...shell: string[]) => {
  const words = shell.filter((word) => typeof word === "string");

  function slot(env: Record<string, string | undefined>, ...args: string[]) {
    const done = Bun.spawnSync([...words, join(SCRIPTS, "slot.sh"), ...args], { env, stderr: "pipe" });
    return { code: done.exitCode, said: `${done.stdout}${done.stderr}`.trim() };
  }

  test("says which slot runs and which starts next, and turns it", () => {
    const { root, env } = device();
    expect(slot(env, "get-current")).toEqual({ code: 0, said: "a" });
    expect(slot(env, "get-primary")).toEqual({ code: 0, said: "a" });
    expect(slot(env, "set-primary", "b")).toEqual({ code: 0, said: "" });
    expect(slot(env, "get-primary")).toEqual({ code: 0, said: "b" });
    expect(readFileSync(join(root, "boot/loader/loader.conf"), "utf8")).toBe("default slot-b.conf\ntimeout 0\n");
  });

  test("keeps which slot is bad; a slot that is to start is good again", () => {
    const { env } = device();
    expect(slot(env, "get-state", "b").said).toBe("good");
    slot(env, "set-state", "b", "bad");
    expect(slot(env, "get-state", "b").said).toBe("bad");
    expect(slot(env, "get-state", "a").said).toBe("good");
    slot(env, "set-primary", "b");
    expect(slot(env, "get-state", "b").said).toBe("good");
  });

  test.each([
    [["set-primary", "c"], 'Cannot use slot "c"'],
    [["set-primary"], 'Cannot use slot ""'],
    [["set-state", "a", "fine"], 'Cannot set state "fine"'],
    [["turn"], 'Cannot do "turn"'],
  ])("refuses %p and changes nothing", (args, words) => {
    const { env } = device();
    const { code, said } = slot(env, ...args);
    expect(code).toBe(1);
    expect(said).toContain(words);
    expect(slot(env, "get-primary").said).toBe("a");
  });
});

const needed = ["rauc", "mksquashfs", "dbus-run-session", "openssl", "mke2fs"];
const missing = needed.find((tool) => toolPath(tool) === undefined);
const why =
  missing === undefined ? (process.getuid?.() === 0 ? undefined : "needs root") : `${missing} is not installed`;

describe.skipIf(why !== undefined)(`RAUC${why === undefined ? "" : ` [skipped: ${why}]`}`, () => {
  const place = (name: string) => join(folder, name);
  const run = (command: string[], env: Record<string, string | undefined> = process.env) => {
    const [tool = "", ...args] = command;
    const done = Bun.spawnSync([toolPath(tool) ?? tool, ...args], { cwd: folder, env, stdout: "pipe", stderr: "pipe" });
    if (!done.success) throw new Error(`${command.join(" ")}: ${done.stdout}${done.stderr}`);
    return `${done.stdout}${done.stderr}`;
  };

  beforeAll(() => {
    run(
      "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out keyring.pem -days 2 -subj /CN=images".split(" "),
    );
    // A slot as an update brings it: a file system with a kernel in it.
    mkdirSync(place("slot/boot"), { recursive: true });
    writeFileSync(place("slot/boot/vmlinuz-9"), "the new kernel");
    writeFileSync(place("slot/boot/initrd.img-9"), "the new initrd");
    mkdirSync(place("bundle"));
    writeFileSync(place("bundle/rootfs.ext4"), "");
    truncateSync(place("bundle/rootfs.ext4"), 8 * 2 ** 20);
    run(["mke2fs", "-q", "-t", "ext4", "-d", place("slot"), place("bundle/rootfs.ext4")]);
    cpSync(join(SCRIPTS, "hook.sh"), place("bundle/hook.sh"));
    run(["chmod", "+x", place("bundle/hook.sh")]);
    writeFileSync(
      place("bundle/manifest.raucm"),
      "[update]\ncompatible=holdfast-debian\nversion=2\n[bundle]\nformat=plain\n[hooks]\nfilename=hook.sh\n[image.rootfs]\nfilename=rootfs.ext4\nhooks=post-install\n",
    );
    run(["rauc", "bundle", "--cert=keyring.pem", "--key=key.pem", "bundle", "update.raucb"]);
  });

  /** The image's own configuration with slots that are files. */
  function config(root: string): string {
    for (const slot of ["root-a", "root-b"]) {
      writeFileSync(join(root, slot), "");
      truncateSync(join(root, slot), 8 * 2 ** 20);
    }
    const text = readFileSync(join(SCRIPTS, "system.conf"), "utf8")
      .replaceAll("/dev/disk/by-partlabel", root)
      .replace("/usr/lib/holdfast-image/slot.sh", join(root, "slot.sh"))
      .replace("/etc/rauc/keyring.pem", place("keyring.pem"))
      .replace("/run/rauc", join(root, "mnt"))
      .replace("/var/lib/holdfast-image/rauc.status", join(root, "rauc.status"));
    cpSync(join(SCRIPTS, "slot.sh"), join(root, "slot.sh"));
    run(["chmod", "+x", join(root, "slot.sh")]);
    writeFileSync(join(root, "system.conf"), text);
    return join(root, "system.conf");
  }

  /** RAUC's service on a bus of its own, and commands to it. */
  function withService(env: Record<string, string | undefined>, configPath: string, commands: string) {
    const script = `export DBUS_SYSTEM_BUS_ADDRESS="$DBUS_SESSION_BUS_ADDRESS"
      rauc --conf=${configPath} --override-boot-slot=a service & service=$!
      for n in 1 2 3 4 5 6 7 8 9 10; do rauc --conf=${configPath} status >/dev/null 2>&1 && break; sleep 0.3; done
      ${commands}
      code=$?; kill $service; exit $code`;
    const done = Bun.spawnSync(["dbus-run-session", "--", "sh", "-c", script], {
      cwd: folder,
      env,
      stdout: "pipe",
      stderr: "pipe",
      timeout: 60_000,
    });
    return { code: done.exitCode, said: `${done.stdout}${done.stderr}` };
  }

  test("installs a signed bundle into the slot that does not run, brings its kernel, and starts it next", () => {
    const { root, env } = device();
    const configPath = config(root);
    const { code, said } = withService(env, configPath, `rauc install ${place("update.raucb")}`);
    expect({ code, said }).toMatchObject({ code: 0 });
    expect(readFileSync(join(root, "boot/loader/loader.conf"), "utf8")).toContain("default slot-b.conf");
    expect(readFileSync(join(root, "boot/slot-b/vmlinuz"), "utf8")).toBe("the new kernel");
    expect(readFileSync(join(root, "boot/slot-b/initrd.img"), "utf8")).toBe("the new initrd");
    expect(readFileSync(join(root, "root-b")).includes("the new kernel")).toBe(true);
    expect(readFileSync(join(root, "root-a")).every((byte) => byte === 0)).toBe(true);
  }, 90_000);

  test("refuses a bundle that somebody else has signed, and turns nothing", () => {
    const { root, env } = device();
    const configPath = config(root);
    run("openssl req -x509 -newkey rsa:2048 -nodes -keyout k2.pem -out c2.pem -days 2 -subj /CN=stranger".split(" "));
    if (!existsSync(place("forged.raucb")))
      run(["rauc", "bundle", "--cert=c2.pem", "--key=k2.pem", "bundle", "forged.raucb"]);
    const { code, said } = withService(env, configPath, `rauc install ${place("forged.raucb")}`);
    expect(code).not.toBe(0);
    expect(said).toMatch(/signature|verif/i);
    expect(readFileSync(join(root, "boot/loader/loader.conf"), "utf8")).toContain("default slot-a.conf");
  }, 90_000);
});
