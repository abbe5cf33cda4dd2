/**
 * `bun run test`: everything that needs no cluster and no root.
 *
 * Builds the executable of this machine first, because tests start it as a
 * process. The report goes to .cache/junit/test.xml.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { ensureDependencies, projectRoot, run } from "./setup.ts";

ensureDependencies();
run([process.execPath, "scripts/build-targets.ts", "--native"]);
const reports = join(projectRoot, ".cache", "junit");
mkdirSync(reports, { recursive: true });
const asked = process.argv.slice(2);
const folders = ["base", "kube", "store", "cache", "proxy", "certificates", "config", "health", "cli", "demo", "contract", "faults", "packaging", "install", "scripts"].map((folder) => `./test/${folder}`);
run([process.execPath, "test", "--timeout=60000", "--reporter=junit", `--reporter-outfile=${join(reports, "test.xml")}`, ...(asked.length > 0 ? asked : folders)]);
