/**
 * What an executable is made of, as a CycloneDX document: the runtime and every
 * package that the lock file names for use at run time, with version, licence
 * and checksum. The same input gives the same bytes: its serial number is made
 * of its content.
 *
 * Source: CycloneDX 1.5.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A lock file's entry: [name@version, registry, {dependencies}, integrity]. */
type Locked = readonly [string, string, { readonly dependencies?: Readonly<Record<string, string>> }, string];

/** The document as text. @param root of the project. */
export function sbomText(root: string, version: string, builtAt: string): string {
  const lock = Bun.JSONC.parse(readFileSync(join(root, "bun.lock"), "utf8")) as {
    workspaces: Readonly<Record<string, { readonly dependencies?: Readonly<Record<string, string>> }>>;
    packages: Readonly<Record<string, Locked>>;
  };
  const names = closure(Object.keys(lock.workspaces[""]?.dependencies ?? {}), lock.packages);
  const runtime = {
    type: "platform",
    "bom-ref": `bun@${Bun.version}`,
    name: "bun",
    version: Bun.version,
    licenses: [{ license: { id: "MIT" } }],
    purl: `pkg:npm/bun@${Bun.version}`,
  };
  const components = [runtime, ...names.map((name) => component(root, lock.packages[name]!))];
  const body = {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: builtAt,
      component: {
        type: "application",
        "bom-ref": `holdfast@${version}`,
        name: "holdfast",
        version,
        licenses: [{ license: { id: "Apache-2.0" } }],
      },
    },
    components,
    dependencies: [{ ref: `holdfast@${version}`, dependsOn: components.map((one) => one["bom-ref"]) }],
  };
  const { bomFormat, specVersion, ...rest } = body;
  return `${JSON.stringify({ bomFormat, specVersion, serialNumber: serialOf(JSON.stringify(body)), ...rest }, undefined, 1)}\n`;
}

/** Everything that these need, by the names of the lock file, sorted. */
function closure(first: readonly string[], packages: Readonly<Record<string, Locked>>): string[] {
  const found = new Set<string>();
  const waiting = [...first];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (found.has(name) || packages[name] === undefined) continue;
    found.add(name);
    for (const inner of Object.keys(packages[name]![2].dependencies ?? {}))
      // A version of its own lies below the package that wants it.
      waiting.push(packages[`${name}/${inner}`] === undefined ? inner : `${name}/${inner}`);
  }
  // Types are no code.
  return [...found].filter((name) => !name.includes("@types/")).sort();
}

function component(root: string, [spec, , , integrity]: Locked) {
  const at = spec.lastIndexOf("@");
  const [name, version] = [spec.slice(0, at), spec.slice(at + 1)];
  const manifest = join(root, "node_modules", name, "package.json");
  const { license } = (existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")) : {}) as { license?: string };
  const [algorithm = "", hash = ""] = integrity.split(/-(.*)/s);
  return {
    type: "library",
    "bom-ref": spec,
    name,
    version,
    hashes: [{ alg: algorithm.replace(/^sha/, "SHA-"), content: Buffer.from(hash, "base64").toString("hex") }],
    licenses:
      license === undefined ? [] : [/[() ]/.test(license) ? { expression: license } : { license: { id: license } }],
    purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
  };
}

/** A UUID of version 8 (RFC 9562): ours to fill. */
function serialOf(content: string): string {
  const hex = new Bun.CryptoHasher("sha256").update(content).digest("hex");
  return `urn:uuid:${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
