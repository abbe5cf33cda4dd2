/**
 * `holdfast page pin`: a new PIN for the technician's page; the former is void.
 */

import * as v from "valibot";
import { PAGE_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { reachDaemon, sorry } from "./reach.ts";
import { complain, print, short } from "./terminal.ts";

const answerSchema = v.object({ pin: v.string(), address: v.optional(v.string()) });

/** Makes a PIN. @returns 0, or 1 where no daemon answers. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, PAGE_FLAGS);
  const [action, ...more] = positionals;
  if (action !== "pin" || more.length > 0) throw new UsageError(`Say pin: holdfast page pin`);
  const daemon = await reachDaemon(values, "holdfast page pin");
  if (daemon === undefined) return 1;
  const response = await fetch("http://holdfast/v1/page/pin", { method: "POST", unix: daemon.path } as RequestInit);
  const read = v.safeParse(answerSchema, await response.json().catch(() => undefined));
  if (!read.success)
    return sorry("holdfast page", {
      problem: "the daemon does not know this command",
      next: "Restart it if its binary was replaced",
    });
  const { pin, address } = read.output;
  print(pin);
  complain(
    address === undefined
      ? "# the page is off: set page: {listen: ADDRESS:PORT} in the configuration"
      : `# for https://${short(address)}/`,
  );
  return 0;
}
