/**
 * `holdfast rehearse --for 10m`: a cut that Holdfast plays itself, and what broke in it.
 *
 * The connection to the daemon is the dead man's switch: when this program
 * ends, however it ends, so does the cut. Ctrl-C ends it and still tells how
 * it went; a second one tells nothing.
 */

import * as v from "valibot";
import { formatDuration, parseDurationMs } from "../base/units.ts";
import { rehearsalLineSchema, type RehearsalReport } from "../health/rehearsal-report.ts";
import { REHEARSE_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { placesGiven, reachDaemon, sorry } from "./reach.ts";
import { complain, jsonText, print, short, table } from "./terminal.ts";
import { counted } from "./words.ts";

const WHO = "holdfast rehearse";
const refusalSchema = v.object({ error: v.string() });
const MAX_WORDS = 600;
const ENDS: Readonly<Record<RehearsalReport["endedBy"], string>> = {
  time: "its time was up",
  person: "ended by hand",
  disconnect: "whoever asked for it went away",
  stop: "the daemon was stopped",
};

/** Rehearses a cut. @returns 0 nothing was left unanswered, 3 something was, 1 refused or broken off. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, REHEARSE_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${short(positionals[0]!)}'`);
  if (values.output !== undefined && values.output !== "json")
    throw new UsageError(`Unknown output '${short(values.output)}'; expected json`);
  const forMs = parseDurationMs(values.for ?? "");
  if (forMs === undefined) throw new UsageError("Say how long, from 1s to 1h: rehearse --for 10m");
  const daemon = await reachDaemon(values, `${WHO} --for ${values.for}`);
  if (daemon === undefined) return 1;
  const report = await rehearse(daemon.path, forMs, values.force === true);
  if (typeof report === "string")
    return sorry(WHO, {
      problem: short(report, MAX_WORDS),
      next:
        values.force === true
          ? `See: holdfast status${placesGiven(values)}`
          : "Mend that first, or cut all the same with --force",
    });
  if (report === undefined) return 1;
  print(
    values.output === "json"
      ? jsonText({ apiVersion: "holdfast.dev/v1alpha1", kind: "Rehearsal", ...report })
      : prose(report),
  );
  return report.unanswered.length === 0 ? 0 : 3;
}

/** @returns how it went; in words why there was none; undefined when it broke off, which has been said. */
async function rehearse(path: string, forMs: number, isForced: boolean): Promise<RehearsalReport | string | undefined> {
  const response = await fetch(`http://holdfast/v1/rehearsal?for=${forMs}&force=${isForced}`, {
    method: "POST",
    unix: path,
    timeout: false,
  } as RequestInit);
  if (!response.ok) {
    const said = v.safeParse(refusalSchema, await response.json().catch(() => undefined));
    return said.success ? said.output.error : `the daemon on ${path} does not know this command; restart it`;
  }
  const stop = () => {
    process.off("SIGINT", stop);
    void fetch("http://holdfast/v1/rehearsal", { method: "DELETE", unix: path } as RequestInit).catch(() => undefined);
  };
  process.on("SIGINT", stop);
  complain(`# the link is cut for ${formatDuration(forMs)}; Ctrl-C ends it`);
  try {
    for await (const line of linesOf(response)) {
      const read = v.safeParse(rehearsalLineSchema, JSON.parse(line));
      if (read.success && read.output.state === "ended") return read.output.report;
    }
  } catch {
    // Said below.
  }
  complain(`${WHO}: the daemon went away, and the cut with it`);
  complain("See: journalctl -u holdfast -n 50");
  return undefined;
}

async function* linesOf(response: Response): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of response.body!) {
    rest += decoder.decode(part, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop()!;
    yield* lines.filter((line) => line !== "");
  }
}

function prose({ endedBy, lastedMs, servedFromCache, refusedWrites, unanswered }: RehearsalReport): string {
  const head = `Cut for ${formatDuration(lastedMs)} (${ENDS[endedBy]}): ${counted(servedFromCache, "answer")} from copies, ${counted(refusedWrites, "write")} refused`;
  if (unanswered.length === 0) return `${head}\nNothing was answered 503.`;
  const rows = unanswered.map(({ verb, resource, caller, times }) => [verb, resource, caller, String(times)]);
  return `${head}\nAnswered 503:\n${table(["VERB", "RESOURCE", "CALLER", "TIMES"], rows)}`;
}
