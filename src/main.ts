/**
 * Arguments in, exit code out.
 */

import { EdgeError } from "./base/errors.ts";
import { refuseDangerous } from "./base/environment.ts";
import { reexecWithSettings } from "./base/reexec.ts";
import { dispatch } from "./cli/dispatch.ts";

const args = process.argv.slice(2);
if (args[0] === "run") reexec();
process.exit(await dispatch(args));

function reexec(): void {
  try {
    refuseDangerous(process.env);
    reexecWithSettings();
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    process.stderr.write(`holdfast run: ${error.message}\n`);
    process.exit(1);
  }
}
