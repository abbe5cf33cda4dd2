import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..", "..");
const name = `holdfast-linux-${process.arch}`;
const binary = join(root, "dist", name);
const folder = mkdtempSync(join(tmpdir(), "holdfast-install-"));
const release = join(folder, "release");

function publish(content: Uint8Array | string): void {
  mkdirSync(release, { recursive: true });
  writeFileSync(join(release, name), content);
  writeFileSync(
    join(release, `${name}.sha256`),
    `${new Bun.CryptoHasher("sha256").update(content).digest("hex")}  ${name}\n`,
  );
}

async function install(env: Record<string, string>, args: string[] = [], shell = "sh") {
  const process_ = Bun.spawn([Bun.which(shell) ?? shell, join(root, "install.sh"), ...args], {
    // The executable alone, where a test does not ask for more: nothing lands in this machine's /etc.
    env: {
      PATH: process.env["PATH"]!,
      HOLDFAST_SKIP_UNITS: "1",
      HOLDFAST_SKIP_SIGNATURE: env["HOLDFAST_BASE_URL"] === undefined ? "" : "1",
      ...env,
    },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([
    new Response(process_.stdout).text(),
    new Response(process_.stderr).text(),
    process_.exited,
  ]);
  return { out, err, code };
}

/** What install.sh asks of a machine besides a downloader. */
const NEEDED = ["uname", "mkdir", "mktemp", "cut", "sha256sum", "cat", "chmod", "mv", "rm"];

/** A PATH on which only these are found. */
function pathWith(tools: readonly string[]): string {
  const path = mkdtempSync(join(folder, "path-"));
  for (const tool of tools) symlinkSync(Bun.which(tool)!, join(path, tool));
  return path;
}

function serveRelease() {
  return Bun.serve({
    port: 0,
    reusePort: false,
    fetch(request) {
      const file = join(release, new URL(request.url).pathname);
      return existsSync(file) ? new Response(Bun.file(file)) : new Response("no", { status: 404 });
    },
  });
}

describe.skipIf(!existsSync(binary))("install.sh (needs dist/)", () => {
  const bin = join(folder, "bin");
  const target = join(bin, "holdfast");
  const fromFolder = { HOLDFAST_ARTIFACT_DIR: release, HOLDFAST_BIN_DIR: bin };

  beforeAll(() => publish(readFileSync(binary)));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("is POSIX sh", () => {
    expect(Bun.spawnSync(["sh", "-n", join(root, "install.sh")]).exitCode).toBe(0);
    if (Bun.which("dash") !== null) expect(Bun.spawnSync(["dash", "-n", join(root, "install.sh")]).exitCode).toBe(0);
  });

  test("says where the files may come from when nobody told it", async () => {
    const { code, err } = await install({ HOLDFAST_BIN_DIR: bin });
    expect(code).toBe(1);
    expect(err).toContain("HOLDFAST_ARTIFACT_DIR");
    expect(existsSync(target)).toBe(false);
  });

  test("DRY_RUN changes nothing", async () => {
    expect((await install({ ...fromFolder, DRY_RUN: "1" })).out).toContain("would install");
    expect(existsSync(target)).toBe(false);
  });

  test("installs from a folder, and a second run changes nothing", async () => {
    const first = await install(fromFolder);
    expect(first.err).toBe("");
    expect(first.out).toContain("next:");
    const { ino, mode } = statSync(target);
    expect(mode & 0o777).toBe(0o755);
    const second = await install(fromFolder);
    expect(second.out).toContain("up to date");
    expect(statSync(target).ino).toBe(ino);
  });

  test("installs from a server, over a running file", async () => {
    using server = serveRelease();
    const other = join(folder, "other");
    mkdirSync(other);
    copyFileSync("/bin/sleep", join(other, "holdfast"));
    const running = Bun.spawn([join(other, "holdfast"), "30"]);
    const { out, code } = await install({ HOLDFAST_BASE_URL: server.url.origin, HOLDFAST_BIN_DIR: other });
    running.kill();
    expect(code).toBe(0);
    expect(out).toContain("installed holdfast");
    expect(Bun.spawnSync([join(other, "holdfast"), "version"]).stdout.toString()).toStartWith("holdfast ");
  });

  test.each(["curl", "wget"])(
    "downloads with %s when there is no other, under a shell that is not bash",
    async (tool) => {
      if (Bun.which(tool) === null) return;
      using server = serveRelease();
      const place = mkdtempSync(join(folder, "place-"));
      const PATH = pathWith([tool, ...NEEDED]);
      const env = { PATH, HOLDFAST_BASE_URL: server.url.origin, HOLDFAST_BIN_DIR: place };
      const { err, code } = await install(env, [], Bun.which("dash") ?? "sh");
      expect({ err, code }).toEqual({ err: "", code: 0 });
      expect(existsSync(join(place, "holdfast"))).toBe(true);
    },
  );

  test("says so when nothing can download", async () => {
    const PATH = pathWith(NEEDED);
    const { err, code } = await install({ PATH, HOLDFAST_BASE_URL: "http://127.0.0.1:1", HOLDFAST_BIN_DIR: bin });
    expect(code).toBe(1);
    expect(err).toContain("neither curl nor wget");
  });

  test("a server without the files leaves the old file and nothing else", async () => {
    using server = Bun.serve({ port: 0, reusePort: false, fetch: () => new Response("no", { status: 404 }) });
    const before = statSync(target).ino;
    const { err, code } = await install({ HOLDFAST_BASE_URL: server.url.origin, HOLDFAST_BIN_DIR: bin });
    expect(code).toBe(1);
    expect(err).toContain(`cannot download ${server.url.origin}/${name}.sha256`);
    expect(statSync(target).ino).toBe(before);
    expect(readdirSync(bin)).toEqual(["holdfast"]);
  });

  test("stopped half-way it leaves the old file and nothing else", async () => {
    const started = Promise.withResolvers<void>();
    using server = Bun.serve({
      port: 0,
      reusePort: false,
      fetch: (request) => {
        const { pathname } = new URL(request.url);
        if (pathname.endsWith("SUMS")) return new Response("no", { status: 404 });
        if (pathname.endsWith(".sha256")) return new Response(`${"0".repeat(64)}  ${name}\n`);
        started.resolve();
        return new Response(new ReadableStream({ start: (controller) => controller.enqueue("half a file") }));
      },
    });
    const before = statSync(target).ino;
    const installing = Bun.spawn(["sh", join(root, "install.sh")], {
      env: {
        ...{ PATH: process.env["PATH"]!, HOLDFAST_SKIP_UNITS: "1", HOLDFAST_SKIP_SIGNATURE: "1" },
        ...{ HOLDFAST_BASE_URL: server.url.origin, HOLDFAST_BIN_DIR: bin },
      },
      stdio: ["ignore", "ignore", "ignore"],
    });
    await started.promise;
    installing.kill("SIGTERM");
    // The shell acts on the signal when its download ends.
    await server.stop(true);
    expect(await installing.exited).not.toBe(0);
    expect(statSync(target).ino).toBe(before);
    expect(readdirSync(bin)).toEqual(["holdfast"]);
  });

  test("a folder in the executable's place is left alone", async () => {
    const place = mkdtempSync(join(folder, "place-"));
    mkdirSync(join(place, "holdfast"));
    const { err, code } = await install({ ...fromFolder, HOLDFAST_BIN_DIR: place });
    expect(code).toBe(1);
    expect(err).toContain("is a folder");
    expect(readdirSync(join(place, "holdfast"))).toEqual([]);
  });

  test("another version than the one asked for is refused, whether it is there already or not", async () => {
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
    const empty = join(folder, "empty");
    for (const HOLDFAST_BIN_DIR of [bin, empty]) {
      const { code, err } = await install({ ...fromFolder, HOLDFAST_BIN_DIR, HOLDFAST_VERSION: "9.9.9" });
      expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("wanted is 9.9.9: nothing was changed") });
    }
    expect(readdirSync(empty)).toEqual([]);
    expect((await install({ ...fromFolder, HOLDFAST_VERSION: `v${version}` })).out).toContain("up to date");
  });

  test.each([
    ["armv7l", "no executable for armv7l"],
    ["i686", "no executable for i686"],
    [process.arch === "x64" ? "aarch64" : "x86_64", "is missing: a 64-bit userland with glibc"],
  ])("a machine that calls itself %s is told what is missing", async (machine, message) => {
    if (existsSync(process.arch === "x64" ? "/lib/ld-linux-aarch64.so.1" : "/lib64/ld-linux-x86-64.so.2")) return;
    const path = pathWith(NEEDED.filter((tool) => tool !== "uname"));
    writeFileSync(join(path, "uname"), `#!/bin/sh\necho ${machine}\n`, { mode: 0o755 });
    const { code, err } = await install({ ...fromFolder, PATH: path });
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining(message) });
  });

  describe("with units, into another root", () => {
    const place = join(folder, "root");
    const asked = join(folder, "asked");
    const systemctl = join(folder, "systemctl");
    const unit = join(place, "etc/systemd/system/holdfast.service");
    const dropIn = join(place, "etc/systemd/system/kubelet.service.d/zz-holdfast.conf");
    const into = {
      ...{ HOLDFAST_ARTIFACT_DIR: release, HOLDFAST_ROOT: place, HOLDFAST_SKIP_UNITS: "" },
      SYSTEMCTL: systemctl,
    };
    const files = () =>
      (readdirSync(place, { recursive: true }) as string[]).filter((at) => statSync(join(place, at)).isFile());
    const heard = () => (existsSync(asked) ? readFileSync(asked, "utf8").trim().split("\n") : []);
    const shell = Bun.which("dash") ?? "sh";

    beforeAll(() => writeFileSync(systemctl, `#!/bin/sh\necho "$*" >> ${asked}\n`, { mode: 0o755 }));

    test("--dry-run says so and brings nothing", async () => {
      const { out, code } = await install(into, ["--dry-run"], shell);
      expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining("would bring its units") });
      expect(existsSync(place)).toBe(false);
    });

    test("brings what holdfast units prints, says what it created, and the daemon is restarted if it runs", async () => {
      const { err, code } = await install(into, [], shell);
      expect({ err, code }).toEqual({ err: "", code: 0 });
      const listed = readFileSync(join(place, "usr/local/lib/holdfast/installed"), "utf8").trim().split("\n");
      const list = listed.filter((at) => !at.endsWith("/"));
      const manual = list.filter((at) => at.includes("/man1/"));
      expect(manual.length).toBeGreaterThan(20);
      expect(
        list
          .filter((at) => !manual.includes(at))
          .map((at) => at.slice(place.length + 1))
          .sort(),
      ).toEqual([
        "etc/systemd/system/holdfast-bypass.service",
        "etc/systemd/system/holdfast-bypass.timer",
        "etc/systemd/system/holdfast-pods.service",
        "etc/systemd/system/holdfast-seal-key.service",
        "etc/systemd/system/holdfast.service",
        "usr/local/bin/holdfast",
        "usr/local/lib/holdfast/bypass.sh",
        "usr/local/lib/holdfast/pod-way.sh",
        "usr/local/share/bash-completion/completions/holdfast",
        "usr/local/share/fish/vendor_completions.d/holdfast.fish",
        "usr/local/share/zsh/site-functions/_holdfast",
      ]);
      expect(files().sort()).toEqual(
        [...list.map((at) => at.slice(place.length + 1)), "usr/local/lib/holdfast/installed"].sort(),
      );
      expect(readFileSync(unit, "utf8")).toContain("ExecStart=/usr/local/bin/holdfast run");
      expect(statSync(join(place, "usr/local/lib/holdfast/bypass.sh")).mode & 0o777).toBe(0o755);
      expect(statSync(unit).mode & 0o777).toBe(0o644);
      expect(heard()).toEqual(["daemon-reload", "try-restart holdfast.service"]);
    });

    test("a second run restarts nothing and changes nothing, a changed unit of ours is put right", async () => {
      rmSync(asked);
      const { ino } = statSync(unit);
      expect((await install(into, [], shell)).out).toContain("up to date");
      expect({ ino: statSync(unit).ino, heard: heard() }).toEqual({ ino, heard: [] });
      writeFileSync(unit, "[Unit]\n");
      expect((await install(into, [], shell)).out).toContain(`brought ${unit}`);
      expect(heard()).toEqual(["daemon-reload", "try-restart holdfast.service"]);
    });

    test("a unit that is not from here is left alone", async () => {
      const other = join(folder, "other-root");
      mkdirSync(join(other, "etc/systemd/system"), { recursive: true });
      writeFileSync(join(other, "etc/systemd/system/holdfast.service"), "[Service]\nExecStart=/mine\n");
      const { out, code } = await install({ ...into, HOLDFAST_ROOT: other }, [], shell);
      expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining("left alone") });
      await install({ ...into, HOLDFAST_ROOT: other }, ["--uninstall", "--purge"], shell);
      expect(readdirSync(join(other, "etc/systemd/system"))).toEqual(["holdfast.service"]);
    });

    test("what a killed run left is cleaned", async () => {
      mkdirSync(join(place, "usr/local/bin/.holdfast.abc123"));
      await install(into, [], shell);
      expect(readdirSync(join(place, "usr/local/bin"))).toEqual(["holdfast"]);
    });

    test.each([
      ["adopted", dropIn, "[Service]\n", "holdfast revert"],
      [
        "led here by hand",
        join(place, "etc/kubernetes/kubelet.conf"),
        "    server: https://127.0.0.1:10268\n",
        "put the API server's address and CA back",
      ],
    ])("--uninstall under a kubelet that was %s is refused", async (_, path, text, words) => {
      mkdirSync(join(path, ".."), { recursive: true });
      writeFileSync(path, text);
      const before = files();
      rmSync(asked, { force: true });
      const { err, code } = await install(into, ["--uninstall"], shell);
      expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining(words) });
      expect({ files: files(), heard: heard() }).toEqual({ files: before, heard: [] });
      rmSync(path);
    });

    test("--uninstall removes what is on the list, --purge what was kept, and nothing else", async () => {
      for (const at of [
        "var/lib/holdfast/holdfast.db",
        "etc/holdfast/config.yaml",
        "etc/systemd/system/mine.service",
      ]) {
        mkdirSync(join(place, at, ".."), { recursive: true });
        writeFileSync(join(place, at), "");
      }
      const all = files().length;
      expect((await install(into, ["--uninstall", "--dry-run"], shell)).out).toContain(`would remove ${unit}`);
      expect(files()).toHaveLength(all);
      expect((await install(into, ["--uninstall"], shell)).out).toContain("what it kept is still in");
      expect(files().sort()).toEqual([
        "etc/holdfast/config.yaml",
        "etc/systemd/system/mine.service",
        "var/lib/holdfast/holdfast.db",
      ]);
      // Folders too, where they were made by it and hold nothing else.
      expect(existsSync(join(place, "usr/local/share"))).toBe(false);
      expect(heard()[0]).toStartWith("disable --now");
      await install(into, ["--uninstall", "--purge"], shell);
      expect(files()).toEqual(["etc/systemd/system/mine.service"]);
    });
  });

  test("--help says how, and what is not known is refused", async () => {
    expect((await install({}, ["--help"])).out).toContain("--uninstall [--purge]");
    expect((await install({}, ["--remove"])).err).toContain('unknown argument "--remove"');
  });

  test("a server without TLS is refused, unless it is this machine", async () => {
    const { code, err } = await install({ HOLDFAST_BASE_URL: "http://198.51.100.7/x", HOLDFAST_BIN_DIR: bin });
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("must begin with https://") });
  });

  test("a wrong checksum leaves the old file and nothing else", async () => {
    const before = statSync(target).ino;
    writeFileSync(join(release, `${name}.sha256`), `${"0".repeat(64)}  ${name}\n`);
    const { code, err } = await install(fromFolder);
    expect(code).toBe(1);
    expect(err).toContain("nothing was changed");
    expect(statSync(target).ino).toBe(before);
    expect(Bun.spawnSync(["ls", "-A", bin]).stdout.toString()).toBe("holdfast\n");
  });

  test("a file that is not holdfast, or was stripped, is refused", async () => {
    publish("#!/bin/sh\necho something else\n");
    expect((await install(fromFolder)).err).toContain("does not call itself holdfast");
    if (Bun.which("strip") === null) return;
    const stripped = join(folder, "stripped");
    copyFileSync(binary, stripped);
    chmodSync(stripped, 0o755);
    Bun.spawnSync(["strip", stripped]);
    publish(readFileSync(stripped));
    expect((await install(fromFolder)).code).toBe(1);
  });

  test("--uninstall removes the executable", async () => {
    expect((await install(fromFolder, ["--uninstall"])).out).toContain("removed");
    expect(existsSync(target)).toBe(false);
  });
});
