/**
 * `holdfast version`. Its first word is the marker by which scripts tell this
 * program from a stripped one, which would answer as its bare runtime.
 */

import { BUILT_AT, COMMIT, VERSION } from "../base/version.ts";
import { VERSION_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { print } from "./terminal.ts";

/** Prints the version. */
export async function command(args: readonly string[]): Promise<number> {
  const { values } = readFlags(args, VERSION_FLAGS);
  if (values.output !== undefined && values.output !== "json")
    throw new UsageError(`Unknown output '${values.output}'; expected json`);
  const platform = `linux/${process.arch === "x64" ? "amd64" : process.arch}`;
  if (values.output === "json")
    print(
      JSON.stringify({
        program: "holdfast",
        version: VERSION,
        commit: COMMIT,
        builtAt: BUILT_AT,
        runtime: `bun ${Bun.version}`,
        platform,
      }),
    );
  else print(`holdfast ${VERSION} (${COMMIT}, ${platform}, bun ${Bun.version})`);
  return 0;
}
