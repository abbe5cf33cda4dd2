/**
 * `bun run demo`: builds the executable of this machine and takes the tour.
 */

import { ensureDependencies, run } from "./setup.ts";

ensureDependencies();
run([process.execPath, "scripts/build-targets.ts", "--native"]);
run([`dist/holdfast-linux-${process.arch}`, "demo", ...process.argv.slice(2)]);
