import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { needsOf } from "../../src/base/elf.ts";
import { RootTree } from "../../src/machine/image/root-tree.ts";
import { holdfast } from "../cli/holdfast.ts";
import { executable } from "./executable.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-image-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TOKEN = "abcdef.0123456789abcdef";
const built = join(import.meta.dir, `../../dist/holdfast-linux-${process.arch}`);
/** A program of this machine. */
const binary = join(folder, "holdfast");
const config = join(folder, "config.yaml");
const foreign = join(folder, "holdfast-foreign");

beforeAll(() => {
  writeFileSync(binary, executable(OWN));
  writeFileSync(foreign, executable(OWN === "amd64" ? "arm64" : "amd64"));
  writeFileSync(
    config,
    "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nkubeconfig: /etc/kubernetes/kubelet.conf\n",
  );
});

function realEnv(): string {
  return Bun.which("env")!;
}

const OWN = process.arch === "x64" ? "amd64" : "arm64";

function stripped(): string {
  const path = join(folder, "holdfast-stripped");
  writeFileSync(path, executable(OWN, true));
  return path;
}

let roots = 0;
/** A root file system as an image builder has one: merged /usr, a loader, no identity. */
function newRoot(files: Readonly<Record<string, string>> = {}): string {
  const root = join(folder, `root-${roots++}`);
  for (const path of ["etc/systemd/system", "usr/bin", "usr/lib64", "usr/lib/systemd/system", "var/lib"])
    mkdirSync(join(root, path), { recursive: true });
  for (const name of ["bin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(root, name));
  copyFileSync(realEnv(), join(root, "usr/bin/env"));
  const loader = needsOf(readFileSync(realEnv()), "env").loader!;
  mkdirSync(join(root, dirname(loader)), { recursive: true });
  writeFileSync(join(root, loader), "");
  writeFileSync(join(root, "etc/machine-id"), "uninitialized\n");
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

const provision = (root: string, ...more: string[]) =>
  holdfast("image", "provision", "--root", root, "--config", config, "--binary", binary, ...more);

describe("a root file system", () => {
  test("is left by no link: absolute ones start at its root, .. ends there", () => {
    const root = newRoot({ "usr/share/inside/file": "inside" });
    const outside = join(folder, "outside");
    mkdirSync(outside);
    symlinkSync("/usr/share/inside", join(root, "etc/absolute"));
    symlinkSync("../../../../../../usr/share/inside", join(root, "etc/upwards"));
    symlinkSync(outside, join(root, "etc/escaping"));
    const tree = new RootTree(root);
    expect(tree.read("/etc/absolute/file")?.toString()).toBe("inside");
    expect(tree.read("/etc/upwards/file")?.toString()).toBe("inside");
    expect(tree.read("/../../etc/absolute/file")?.toString()).toBe("inside");
    tree.write("/etc/escaping/planted", "x", 0o644);
    expect(readdirSync(outside)).toEqual([]);
    expect(readFileSync(join(root, outside, "planted"), "utf8")).toBe("x");
  });

  test("links that lead round in a circle are named, and a folder that is none is refused", () => {
    const root = newRoot();
    symlinkSync("/etc/b", join(root, "etc/a"));
    symlinkSync("/etc/a", join(root, "etc/b"));
    expect(() => new RootTree(root).read("/etc/a/file")).toThrow("its links lead round in a circle");
    expect(() => new RootTree(join(root, "usr"))).toThrow("no root file system");
    expect(() => new RootTree(join(root, "nowhere"))).toThrow("there is no such folder");
  });

  test("removing a link leaves what it leads to", () => {
    const root = newRoot({ "usr/share/kept": "kept" });
    symlinkSync("/usr/share/kept", join(root, "etc/link"));
    new RootTree(root).remove("/etc/link");
    expect(existsSync(join(root, "usr/share/kept"))).toBe(true);
  });
});

describe("image seal", () => {
  const identity = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key": "key",
    "etc/ssh/ssh_host_ed25519_key.pub": "key",
    "etc/ssh/sshd_config": "Port 22\n",
    "etc/kubernetes/kubelet.conf": "kubeconfig",
    "etc/kubernetes/pki/ca.crt": "the cluster's",
    "var/lib/kubelet/pki/kubelet-client-current.pem": "pair",
    "var/lib/holdfast/holdfast.db": "rows",
    "var/lib/holdfast/pki/local-ca.key": "key",
    "etc/credstore.encrypted/holdfast-seal-key": "key",
    "var/lib/systemd/random-seed": "seed",
    "boot/firmware/holdfast-join.yaml": `token: ${TOKEN}`,
    "boot/firmware/config.txt": "kept",
  };

  test("wipes what is one machine's alone, names it, and nothing else; a second time there is nothing", async () => {
    const root = newRoot(identity);
    const first = await holdfast("image", "seal", "--root", root);
    expect(first.code).toBe(0);
    for (const [path, text] of Object.entries(identity)) {
      if (/sshd_config|config\.txt/.test(path)) expect(readFileSync(join(root, path), "utf8")).toBe(text);
      else if (path === "etc/machine-id") expect(readFileSync(join(root, path), "utf8")).toBe("");
      else expect({ path, isThere: existsSync(join(root, path)) }).toEqual({ path, isThere: false });
    }
    expect(first.stdout).toContain("wiped /etc/ssh/ssh_host_ed25519_key: an SSH host key");
    expect(first.stdout).not.toContain(TOKEN);
    expect((await holdfast("image", "seal", "--root", root)).stdout).toContain("was sealed already");
  });

  test("knows the state folder that the configuration names", async () => {
    const root = newRoot({
      "etc/holdfast/config.yaml": "stateDir: /data/holdfast\n",
      "data/holdfast/holdfast.db": "rows",
    });
    await holdfast("image", "seal", "--root", root);
    expect(readdirSync(join(root, "data/holdfast"))).toEqual([]);
  });
});

describe("image provision", () => {
  test("puts everything in its place, lists it, and changes nothing the second time", async () => {
    const root = newRoot();
    const first = await provision(root);
    expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: "" });
    expect(readFileSync(join(root, "usr/local/bin/holdfast"))).toEqual(readFileSync(binary));
    expect(readFileSync(join(root, "etc/holdfast/config.yaml"))).toEqual(readFileSync(config));
    expect(statSync(join(root, "etc/holdfast/config.yaml")).mode & 0o777).toBe(0o600);
    expect(statSync(join(root, "etc/holdfast")).mode & 0o777).toBe(0o700);
    expect(readFileSync(join(root, "etc/systemd/system/holdfast.service.d/10-image.conf"), "utf8")).toContain(
      "ConditionPathExists=/etc/kubernetes/kubelet.conf\n",
    );
    for (const path of filesIn(root)) {
      const isListed = first.stdout.split("\n").some((line) => line.split(" ")[1] === `/${path}`);
      const isGiven = /^(usr\/bin\/env|etc\/machine-id|lib|bin|lib64|usr\/lib64\/.*|usr\/lib\/ld.*)$/.test(path);
      expect({ path, isListed: isListed || isGiven }).toEqual({ path, isListed: true });
    }
    const before = filesIn(root).map((path) => [path, lstatSync(join(root, path)).mtimeMs]);
    const second = await provision(root);
    expect(second.stdout.trim()).toBe(`${root} was provisioned already: nothing changed`);
    expect(
      filesIn(root)
        .map((path) => [path, lstatSync(join(root, path)).mtimeMs])
        .filter(([path]) => path !== "usr/lib/clock-epoch"),
    ).toEqual(before.filter(([path]) => path !== "usr/lib/clock-epoch"));
  });

  test.skipIf(Bun.which("systemctl") === null)("enables units as systemctl would", async () => {
    const root = newRoot();
    await provision(root);
    const links = filesIn(root).filter((path) => path.includes(".wants/"));
    const untouched = join(folder, "by-systemctl");
    cpSync(root, untouched, { recursive: true, verbatimSymlinks: true });
    for (const path of links) rmSync(join(untouched, path));
    const units = readdirSync(join(untouched, "etc/systemd/system")).filter((name) => /\.(service|timer)$/.test(name));
    const enabled = units.filter((name) =>
      readFileSync(join(untouched, "etc/systemd/system", name), "utf8").includes("\nWantedBy="),
    );
    expect(Bun.spawnSync(["systemctl", `--root=${untouched}`, "enable", ...enabled]).success).toBe(true);
    const listed = (of: string) =>
      filesIn(of)
        .filter((path) => path.includes(".wants/"))
        .map((path) => `${path} -> ${readlinkSync(join(of, path))}`);
    expect(listed(root)).toEqual(listed(untouched));
    expect(listed(root).length).toBeGreaterThan(2);
  });

  test("refuses a root that is some machine already, in words, and writes nothing", async () => {
    const root = newRoot({ "etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/ssh/ssh_host_rsa_key": "key" });
    const before = filesIn(root);
    const { code, stderr } = await provision(root);
    expect(code).toBe(1);
    expect(stderr).toContain("/etc/ssh/ssh_host_rsa_key (an SSH host key), /etc/machine-id (systemd's machine id)");
    expect(stderr).toContain(`holdfast image seal --root ${root}`);
    expect(filesIn(root)).toEqual(before);
    await holdfast("image", "seal", "--root", root);
    expect((await provision(root)).code).toBe(0);
  });

  test.each([
    ["an executable for another architecture", () => ["--binary", foreign], "give the other one with --binary"],
    ["an executable without our program", () => ["--binary", realEnv()], "it was stripped or packed"],
    ["a stripped executable", () => ["--binary", stripped()], "it was stripped or packed"],
    ["no executable", () => ["--binary", config], "it is no program for amd64 or arm64"],
    ["a missing executable", () => ["--binary", join(folder, "nowhere")], "there is no such file"],
    ["this machine's root", () => ["--root", "/"], "'/' is this machine"],
  ])("refuses %s", async (_, args, words) => {
    const root = newRoot();
    const before = filesIn(root);
    const { code, stderr } = await provision(root, ...args());
    expect(code).not.toBe(0);
    expect(stderr).toContain(words);
    expect(filesIn(root)).toEqual(before);
  });

  test.skipIf(!existsSync(built))("knows the executable that was built, and that it was stripped", async () => {
    const root = newRoot();
    const path = join(folder, "built");
    copyFileSync(built, path);
    expect((await provision(root, "--binary", path)).code).toBe(0);
    if (Bun.which("strip") === null) return;
    expect(Bun.spawnSync(["strip", path]).success).toBe(true);
    expect((await provision(root, "--binary", path)).stderr).toContain("it was stripped or packed");
  });

  test("refuses a root without our loader, as one of another libc is", async () => {
    const root = newRoot();
    rmSync(join(root, needsOf(readFileSync(realEnv()), "env").loader!));
    expect((await provision(root)).stderr).toContain("a 64-bit userland with glibc 2.17 or later is needed");
  });

  test.each([
    ["a misspelt field", "kubeconfg: /x\n", "kubeconfg"],
    ["no kubeconfig", "", "kubeconfig is missing"],
  ])("refuses a configuration with %s", async (_, text, words) => {
    const bad = join(folder, "bad.yaml");
    writeFileSync(bad, `apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n${text}`);
    const { code, stderr } = await provision(newRoot(), "--config", bad);
    expect(code).toBe(1);
    expect(stderr).toContain(words);
  });

  test("replaces an executable that is there, and its mode", async () => {
    const root = newRoot({ "usr/local/bin/holdfast": "old" });
    chmodSync(join(root, "usr/local/bin/holdfast"), 0o600);
    await provision(root);
    expect(readFileSync(join(root, "usr/local/bin/holdfast"))).toEqual(readFileSync(binary));
    expect(statSync(join(root, "usr/local/bin/holdfast")).mode & 0o777).toBe(0o755);
  });
});

/** Files and links of a tree, by path, sorted; links are not followed. */
function filesIn(root: string, folder = ""): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? filesIn(root, path) : [path];
    })
    .sort();
}
