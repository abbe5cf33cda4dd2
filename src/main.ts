/**
 * Arguments in, exit code out.
 */

import { ProfileError, reexecWithSettings } from "./base/reexec.ts";
import { dispatch } from "./cli/dispatch.ts";

const args = process.argv.slice(2);
if (args[0] === "run") reexec();
process.exit(await dispatch(args));

function reexec(): void {
  try {
    reexecWithSettings();
  } catch (error) {
    if (!(error instanceof ProfileError)) throw error;
    process.stderr.write(`holdfast run: ${error.message}\n`);
    process.exit(1);
  }
}
