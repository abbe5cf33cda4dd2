/**
 * Arguments in, exit code out.
 */

import { reexecWithNetworkSettings } from "./base/reexec.ts";
import { dispatch } from "./cli/dispatch.ts";

const args = process.argv.slice(2);
if (args[0] === "run") reexecWithNetworkSettings();
process.exit(await dispatch(args));
