import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
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
import {
  isSignedBy,
  newSigningKey,
  publicKeyLine,
  readSecretKey,
  secretKeyFile,
  signatureFile,
} from "../../scripts/release/minisign.ts";
import { makeRelease } from "../../scripts/release.ts";
import { COMMANDS } from "../../src/cli/commands.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-release-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const key = newSigningKey();
const name = `holdfast-linux-${process.arch}`;
/** Stands in for the executable: what is tried here is how it travels. */
const PROGRAM = '#!/bin/sh\necho "holdfast 0.1.0 (abc, linux)"\n';

async function release(outputDir: string, signedBy: typeof key | undefined = key): Promise<string> {
  const binaries = join(folder, "binaries");
  mkdirSync(binaries, { recursive: true });
  for (const arch of ["x64", "arm64"]) writeFileSync(join(binaries, `holdfast-linux-${arch}`), PROGRAM);
  await makeRelease({ binaries, outputDir, key: signedBy, version: "0.1.0", builtAt: "2026-11-30T01:02:03.000Z" });
  return outputDir;
}

const filesOf = (at: string) =>
  (readdirSync(at, { recursive: true }) as string[])
    .filter((path) => statSync(join(at, path)).isFile())
    .sort()
    .map((path) => [path, statSync(join(at, path)).mode & 0o777, readFileSync(join(at, path)).toString("base64")]);

describe.skipIf(Bun.which("xz") === null)("a release (needs xz)", () => {
  const place = join(folder, "first");
  beforeAll(async () => void (await release(place)));

  test("is byte-equal when it is made twice, whatever the mask and the folder", async () => {
    const mask = process.umask(0o077);
    try {
      await release(join(folder, "second"));
    } finally {
      process.umask(mask);
    }
    expect(filesOf(join(folder, "second"))).toEqual(filesOf(place));
  });

  test("names every file in its manifest, the unpacked executables too, and nothing else", () => {
    const lines = readFileSync(join(place, "SHA256SUMS"), "utf8").trim().split("\n");
    const named = new Map(lines.map((line) => [line.slice(66), line.slice(0, 64)]));
    const present = filesOf(place).map(([path]) => path as string);
    const own = ["SHA256SUMS", "SHA256SUMS.minisig", "holdfast.pub"];
    expect([...named.keys()].sort()).toEqual(
      [...present.filter((path) => !own.includes(path)), "holdfast-linux-arm64", "holdfast-linux-x64"].sort(),
    );
    for (const [path, sum] of named) {
      const content = present.includes(path) ? readFileSync(join(place, path)) : PROGRAM;
      expect([path, new Bun.CryptoHasher("sha256").update(content).digest("hex")]).toEqual([path, sum]);
    }
    for (const path of [
      "units/small/etc/systemd/system/holdfast.service",
      "completion/_holdfast",
      "man/holdfast-check.1",
    ])
      expect(present).toContain(path);
  });

  test("its bill of materials names the runtime and what is bundled, with checksums and licences", () => {
    const { components, serialNumber, specVersion } = JSON.parse(readFileSync(join(place, "sbom.cdx.json"), "utf8"));
    expect(specVersion).toBe("1.5");
    expect(serialNumber).toMatch(/^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
    const byName = new Map(components.map((one: { name: string }) => [one.name, one]));
    const { dependencies } = JSON.parse(readFileSync(join(import.meta.dir, "../../package.json"), "utf8"));
    for (const [dependency, version] of Object.entries(dependencies))
      expect(byName.get(dependency)).toMatchObject({
        version,
        hashes: [{ alg: "SHA-512", content: expect.stringMatching(/^[0-9a-f]{128}$/) }],
      });
    expect(byName.get("bun")).toMatchObject({ version: Bun.version });
    // What only builds and tests is none of it.
    for (const tool of ["oxlint", "typescript", "fast-check"]) expect(byName.has(tool)).toBe(false);
  });

  test.skipIf(Bun.which("man") === null)(
    "its manual pages are read without a complaint, and hold every flag",
    () => {
      for (const row of COMMANDS) {
        const { stdout, stderr } = Bun.spawnSync(
          ["man", "-l", "--warnings", join(place, "man", `holdfast-${row.name}.1`)],
          {
            env: { PATH: process.env["PATH"]!, MANWIDTH: "400", LC_ALL: "C", MANPAGER: "cat" },
          },
        );
        expect([row.name, stderr.toString()]).toEqual([row.name, ""]);
        for (const [flag, { about }] of Object.entries(row.flags)) {
          expect(stdout.toString()).toContain(`--${flag}`);
          expect(stdout.toString().replaceAll(/\s+/g, " ")).toContain(about.replaceAll(/\s+/g, " "));
        }
      }
    },
    60_000,
  );

  test.skipIf(Bun.which("minisign") === null)("the real minisign believes the signature, and no other file", () => {
    const check = (file: string) =>
      Bun.spawnSync([
        "minisign",
        "-V",
        "-p",
        join(place, "holdfast.pub"),
        "-x",
        join(place, "SHA256SUMS.minisig"),
        "-m",
        file,
      ]);
    expect(check(join(place, "SHA256SUMS")).stdout.toString()).toContain(
      "Trusted comment: holdfast 0.1.0 of 2026-11-30T01:02:03.000Z",
    );
    const other = join(folder, "other-sums");
    writeFileSync(other, readFileSync(join(place, "SHA256SUMS"), "utf8").replace(/^./, "0"));
    expect(check(other).exitCode).not.toBe(0);
  });

  test.skipIf(Bun.which("minisign") === null)("minisign signs with our secret key, and we believe minisign", () => {
    const secret = join(folder, "secret.key");
    const file = join(folder, "signed");
    writeFileSync(secret, secretKeyFile(key));
    writeFileSync(file, "something");
    // -l: the older form, over the file itself.
    const made = Bun.spawnSync(["minisign", "-S", "-l", "-s", secret, "-m", file]);
    expect(made.stderr.toString()).toBe("");
    const signature = readFileSync(`${file}.minisig`, "utf8");
    expect(isSignedBy(Buffer.from("something"), signature, publicKeyLine(key))).toBe(true);
    expect(isSignedBy(Buffer.from("something else"), signature, publicKeyLine(key))).toBe(false);
  });

  describe("installed", () => {
    const NEEDED = [
      "uname",
      "mkdir",
      "mktemp",
      "cut",
      "sha256sum",
      "cat",
      "chmod",
      "mv",
      "rm",
      "sed",
      "tail",
      "head",
      "base64",
      "sh",
      "xz",
    ];
    const MAKERS = ["minisign", "signify-openbsd", "openssl"];

    function pathWith(...tools: readonly string[]): string {
      const path = mkdtempSync(join(folder, "path-"));
      for (const tool of [...NEEDED, ...tools]) symlinkSync(Bun.which(tool)!, join(path, tool));
      return path;
    }

    function changed(change: (at: string) => void): string {
      const at = mkdtempSync(join(folder, "changed-"));
      cpSync(place, at, { recursive: true });
      change(at);
      return at;
    }

    async function install(at: string, env: Record<string, string> = {}, script = join(at, "install.sh")) {
      const bin = mkdtempSync(join(folder, "bin-"));
      const child = Bun.spawn([Bun.which("dash") ?? "sh", script], {
        env: {
          PATH: pathWith(Bun.which("openssl") === null ? "minisign" : "openssl"),
          HOLDFAST_ARTIFACT_DIR: at,
          HOLDFAST_BIN_DIR: bin,
          HOLDFAST_SKIP_UNITS: "1",
          ...env,
        },
        stdout: "pipe",
        stderr: "pipe",
      });
      const [out, err, code] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
        child.exited,
      ]);
      return { out, err, code, isThere: existsSync(join(bin, "holdfast")), left: readdirSync(bin) };
    }

    for (const tool of MAKERS)
      test.skipIf(Bun.which(tool) === null)(
        `where ${tool} alone can check it, signed is taken and changed is not${Bun.which(tool) === null ? ` (there is no ${tool} here)` : ""}`,
        async () => {
          const PATH = pathWith(tool);
          expect(await install(place, { PATH })).toMatchObject({ err: "", code: 0, isThere: true, left: ["holdfast"] });
          const forged = changed((at) => {
            // Whoever can write the files can make them fit each other.
            writeFileSync(
              join(at, "SHA256SUMS"),
              readFileSync(join(at, "SHA256SUMS"), "utf8").replace("LICENSE", "LICENCE"),
            );
          });
          expect(await install(forged, { PATH })).toMatchObject({
            code: 1,
            err: expect.stringContaining("is not signed with the public key"),
            left: [],
          });
          const byAnother = changed((at) => {
            const sums = readFileSync(join(at, "SHA256SUMS"));
            writeFileSync(join(at, "SHA256SUMS.minisig"), signatureFile(sums, newSigningKey(), "holdfast 0.1.0"));
          });
          expect(await install(byAnother, { PATH })).toMatchObject({
            code: 1,
            err: expect.stringContaining("is not signed"),
          });
        },
      );

    test("where nothing can check it, it is refused unless told; so is a release without a signature", async () => {
      const PATH = pathWith();
      expect(await install(place, { PATH })).toMatchObject({
        code: 1,
        err: expect.stringContaining("install minisign (or openssl)"),
        left: [],
      });
      expect(await install(place, { PATH, HOLDFAST_SKIP_SIGNATURE: "1" })).toMatchObject({
        code: 0,
        out: expect.stringContaining("was not checked"),
        isThere: true,
      });
      const unsigned = changed((at) => rmSync(join(at, "SHA256SUMS.minisig")));
      expect(await install(unsigned)).toMatchObject({ code: 1, err: expect.stringContaining("SHA256SUMS.minisig") });
      const none = changed((at) => rmSync(join(at, "SHA256SUMS")));
      expect(await install(none)).toMatchObject({ code: 1, err: expect.stringContaining("has no SHA256SUMS") });
    });

    test("a packed executable that was changed is refused, before and after it is unpacked", async () => {
      const damaged = changed((at) => writeFileSync(join(at, `${name}.xz`), "no xz"));
      expect(await install(damaged)).toMatchObject({
        code: 1,
        err: expect.stringContaining(`checksum of ${name}.xz is`),
        left: [],
      });
    });

    test("from a server nothing is taken that nobody vouches for", async () => {
      await using server = Bun.serve({
        port: 0,
        fetch(request) {
          const path = join(place, new URL(request.url).pathname);
          return existsSync(path) ? new Response(Bun.file(path)) : new Response("no", { status: 404 });
        },
      });
      const tool = ["curl", "wget"].find((one) => Bun.which(one) !== null)!;
      const env = { HOLDFAST_ARTIFACT_DIR: "", HOLDFAST_BASE_URL: server.url.origin, PATH: pathWith(tool, "openssl") };
      expect(await install(place, env)).toMatchObject({ err: "", code: 0, isThere: true });
      // The source's own script carries no key.
      const source = join(import.meta.dir, "..", "..", "install.sh");
      expect(await install(place, env, source)).toMatchObject({
        code: 1,
        err: expect.stringContaining("carries no public key"),
        left: [],
      });
      expect(await install(place, { ...env, HOLDFAST_PUBLIC_KEY: publicKeyLine(key) }, source)).toMatchObject({
        code: 0,
      });
    });

    test("the version may be asked for with and without v; another is refused", async () => {
      for (const HOLDFAST_VERSION of ["0.1.0", "v0.1.0"])
        expect((await install(place, { HOLDFAST_VERSION })).code).toBe(0);
      expect(await install(place, { HOLDFAST_VERSION: "v0.2.0" })).toMatchObject({
        code: 1,
        err: expect.stringContaining("wanted is 0.2.0"),
        left: [],
      });
    });

    test("without xz it says what to install", async () => {
      const PATH = pathWith("openssl");
      rmSync(join(PATH, "xz"));
      expect(await install(place, { PATH })).toMatchObject({
        code: 1,
        err: expect.stringContaining("apt-get install xz-utils"),
        left: [],
      });
    });
  });
});

test("a secret key is read as it was written; a damaged one and one with a password are refused", () => {
  const text = secretKeyFile(key);
  expect(publicKeyLine(readSecretKey(text))).toBe(publicKeyLine(key));
  const bytes = Buffer.from(text.split("\n")[1]!, "base64");
  const written = (at: number, value: number) => {
    const other = Buffer.from(bytes);
    other[at] = value;
    return `x\n${other.toString("base64")}\n`;
  };
  expect(() => readSecretKey(written(70, bytes[70]! ^ 1))).toThrow("damaged");
  expect(() => readSecretKey(written(2, 0x53))).toThrow("password");
  expect(() => readSecretKey("x\ny\n")).toThrow("no minisign secret key");
});
