/**
 * What stands under the executable in the image: a C library and four small
 * files.
 *
 * The executable is linked against glibc, so an empty image does not do, and a
 * base image would be pulled from somewhere. The C library is taken from this
 * machine's own Debian packages instead, in the order of LIBC: the package of
 * that architecture where it is installed, which gets Debian's security
 * updates, else the one for cross-compiling, which does not. Which it was, and
 * its licence, is written into the image where scanners look for it.
 *
 * Only what the executable asks for by name is taken, and what that asks for.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Needs } from "../../src/base/elf.ts";
import { needsOf } from "../../src/base/elf.ts";
import type { TarEntry } from "./tar.ts";

/** An architecture of the image. */
export type Architecture = Needs["machine"];

/** A Debian package that a C library comes from. */
export interface LibcPackage {
  readonly name: string;
  readonly version: string;
  /** The source package, which Debian keeps for whoever asks for it. */
  readonly source: string;
  readonly licence: string;
}

/** The lower layer of an image. */
export interface Base {
  readonly entries: readonly TarEntry[];
  readonly libc: LibcPackage;
}

/** Who runs the program: nobody in particular, and never root. */
export const USER_ID = 65_532;

const LIBC: Readonly<Record<Architecture, readonly { readonly name: string; readonly folder: string }[]>> = {
  amd64: [
    { name: "libc6:amd64", folder: "/lib/x86_64-linux-gnu" },
    { name: "libc6-amd64-cross", folder: "/usr/x86_64-linux-gnu/lib" },
  ],
  arm64: [
    { name: "libc6:arm64", folder: "/lib/aarch64-linux-gnu" },
    { name: "libc6-arm64-cross", folder: "/usr/aarch64-linux-gnu/lib" },
  ],
};
/** Where the loader looks, without a cache of its own. */
const LIBRARY_FOLDER: Readonly<Record<Architecture, string>> = {
  amd64: "lib/x86_64-linux-gnu",
  arm64: "lib/aarch64-linux-gnu",
};
const LICENCE_TEXT = "/usr/share/common-licenses/LGPL-2.1";

const ACCOUNTS: readonly TarEntry[] = [
  text("etc/passwd", `root:x:0:0:root:/:/sbin/nologin\nnonroot:x:${USER_ID}:${USER_ID}:nonroot:/:/sbin/nologin\n`),
  text("etc/group", `root:x:0:\nnonroot:x:${USER_ID}:\n`),
  text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
  { path: "tmp/", mode: 0o1777 },
];

/**
 * The base for an executable.
 *
 * @throws when a library it asks for is in no package of this machine.
 */
export function baseFor(executable: Uint8Array, path: string): Base {
  const needs = needsOf(executable, path);
  const { machine, loader } = needs;
  if (loader === undefined) throw new Error(`Cannot make an image of "${path}": it names no loader`);
  const origin = LIBC[machine].find(({ folder }) => existsSync(join(folder, "libc.so.6")));
  if (origin === undefined) {
    const names = LIBC[machine].map(({ name }) => name).join(" or ");
    throw new Error(`Cannot make an image for ${machine}: no C library; install the package ${names}`);
  }
  const libc = describePackage(origin.name);
  const files = new Map<string, TarEntry>();
  const take = (name: string) => {
    const target = loader.endsWith(`/${name}`) ? loader.slice(1) : `${LIBRARY_FOLDER[machine]}/${name}`;
    if (files.has(target)) return;
    const source = join(origin.folder, name);
    if (!existsSync(source)) throw new Error(`Cannot make an image of "${path}": ${origin.name} holds no ${name}`);
    const bytes = readFileSync(source);
    files.set(target, { path: target, bytes, mode: 0o755 });
    for (const next of needsOf(bytes, source).libraries) take(next);
  };
  take(loader.slice(loader.lastIndexOf("/") + 1));
  for (const name of needs.libraries) take(name);
  return { entries: [...ACCOUNTS, ...files.values(), ...papersOf(libc)], libc };
}

function describePackage(name: string): LibcPackage {
  const format = "${Package}\n${Version}\n${source:Package} ${source:Version}";
  const result = Bun.spawnSync(["dpkg-query", "-W", "-f", format, name], { stdout: "pipe", stderr: "pipe" });
  const [plain, version, source] = result.stdout.toString().split("\n");
  if (result.exitCode !== 0 || plain === undefined || version === undefined || source === undefined)
    throw new Error(`Cannot name the origin of the C library: dpkg-query knows no package ${name}`);
  return { name: plain, version, source, licence: "LGPL-2.1-or-later" };
}

/** What scanners and lawyers look for, where they look for it. */
function papersOf({ name, version, source }: LibcPackage): TarEntry[] {
  const paragraph = [
    `Package: ${name}`,
    `Version: ${version}`,
    "Status: install ok installed",
    `Source: ${source.replace(/ (.*)$/, " ($1)")}`,
    "Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>",
    "Description: GNU C Library: the loader and the libraries that /holdfast asks for",
  ];
  return [
    text(`var/lib/dpkg/status.d/${name}`, `${paragraph.join("\n")}\n`),
    { path: `usr/share/doc/${name}/copyright`, bytes: readFileSync(`/usr/share/doc/${name}/copyright`) },
    { path: LICENCE_TEXT.slice(1), bytes: readFileSync(LICENCE_TEXT) },
    text("etc/os-release", releaseOfThisMachine()),
  ];
}

/** Scanners compare package versions by these two lines. */
function releaseOfThisMachine(): string {
  const lines = readFileSync("/etc/os-release", "utf8").split("\n");
  return `${lines.filter((line) => /^(?:ID|VERSION_ID)=/.test(line)).join("\n")}\n`;
}

function text(path: string, content: string): TarEntry {
  return { path, bytes: Buffer.from(content) };
}
