/**
 * The first boots of a device, until it has joined.
 *
 *   look for the drop-in -> join -> written down: joined -> shred it -> written down: done
 *
 * Killed anywhere it goes on where it was: whoever joined and was killed before
 * the shredding shreds at the next start, and does not join again. A drop-in
 * that is at fault is named once and read again when it changes; a link that is
 * not there is waited for. What is said goes to the console as well (the unit's
 * doing), for a technician who has nothing else.
 *
 * Invariant: no word of a drop-in's content is ever said.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "../../base/atomic-file.ts";
import { EdgeError } from "../../base/errors.ts";
import { DeviceJoinError } from "../join-device.ts";
import type { BootFolder } from "./boot-folders.ts";
import { DROP_IN_NAME, dropInsIn, readDropIn, shred, tracesIn } from "./drop-in.ts";

/** What the first boots need of the device. */
export interface FirstBootPorts {
  readonly stateDir: string;
  /** Where a drop-in may lie now; mounted as long as it is used. */
  folders(): BootFolder[];
  /** Joins by a drop-in's text; may be called again at any time. @throws {DeviceJoinError} */
  join(text: string, path: string): Promise<{ readonly nodeName: string; readonly server: string }>;
  /** A line for people. */
  say(line: string): void;
  nowMs(): number;
  wait(ms: number): Promise<void>;
}

/** A technician waits beside the device: no longer than that between two looks. */
const LOOK_EVERY_MS = 5_000;
/** Between two tries of one drop-in, at most. */
const MAX_PAUSE_MS = 60_000;
/** A drop-in that was at fault may have been early: the token comes to be, the CA is put right. */
const REFUSED_MS = 10 * 60_000;
const AGAIN = "Write it anew on any computer; it is read again when it changes";

/** The file that says that the device has joined; the drop-in may still be there. */
export function joinedPath(stateDir: string): string {
  return join(stateDir, "first-boot.joined");
}

/** The file that says that nothing is left to do; the unit looks for it. */
export function donePath(stateDir: string): string {
  return join(stateDir, "first-boot.done");
}

/** Returns when the device has joined and nothing of the drop-in is left. */
export async function firstBoot(ports: FirstBootPorts): Promise<void> {
  // A sentence that stands there already tells a technician nothing.
  let said = "";
  const say = (line: string) => {
    if (line !== said) ports.say(line);
    said = line;
  };
  if (!existsSync(joinedPath(ports.stateDir))) {
    await joinByDropIn(ports, say);
    writeFileAtomically(joinedPath(ports.stateDir), "", 0o600);
  }
  await shredAll(ports, say);
  writeFileAtomically(donePath(ports.stateDir), "", 0o600);
}

/** Looks and tries until a drop-in has led to a cluster. */
async function joinByDropIn(ports: FirstBootPorts, say: (line: string) => void): Promise<void> {
  let refused = { text: "", untilMs: 0 };
  let pauseMs = LOOK_EVERY_MS;
  for (;;) {
    const found = readFirst(ports, say);
    if (found === undefined || (found.text === refused.text && ports.nowMs() < refused.untilMs)) {
      await ports.wait(LOOK_EVERY_MS);
      continue;
    }
    if (found.text !== refused.text) pauseMs = LOOK_EVERY_MS;
    try {
      const { nodeName, server } = await ports.join(found.text, found.path);
      return say(`joined ${server} as node ${nodeName}`);
    } catch (error) {
      refused = { text: found.text, untilMs: 0 };
      if (error instanceof DeviceJoinError && error.isFinal) {
        refused.untilMs = ports.nowMs() + REFUSED_MS;
        say(`${error.message}. ${AGAIN}`);
        continue;
      }
      say(`not joined yet: ${wordsOf(error)}. Trying again`);
      await ports.wait(pauseMs);
      pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2);
    }
  }
}

/** The first drop-in's text; undefined, and said so, where there is none that can be read. */
function readFirst(
  ports: FirstBootPorts,
  say: (line: string) => void,
): { readonly path: string; readonly text: string } | undefined {
  const folders = ports.folders();
  const [path] = folders.flatMap((folder) => dropInsIn(folder.path));
  try {
    if (path !== undefined) return { path, text: readDropIn(path) };
    const places = folders.map((folder) => folder.path).join(", ");
    say(
      `waiting for ${DROP_IN_NAME}: ${places === "" ? "there is no boot partition" : `none in ${places}`}. Put one on the card's boot partition, or on a FAT partition labelled HOLDFAST`,
    );
  } catch (error) {
    say(`${path} is no use: ${wordsOf(error)}. ${AGAIN}`);
  } finally {
    for (const folder of folders) folder.release();
  }
  return undefined;
}

/** Until every trace is gone; a partition that cannot be written is named and tried again. */
async function shredAll(ports: FirstBootPorts, say: (line: string) => void): Promise<void> {
  for (;;) {
    const folders = ports.folders();
    try {
      for (const folder of folders) shredIn(folder);
      return;
    } catch (error) {
      say(`the join file cannot be removed: ${wordsOf(error)}; its token is still on the boot partition. Trying again`);
    } finally {
      for (const folder of folders) folder.release();
    }
    await ports.wait(MAX_PAUSE_MS);
  }
}

function shredIn(folder: BootFolder): void {
  const traces = tracesIn(folder.path);
  if (traces.length === 0) return;
  folder.makeWritable();
  for (const trace of traces) shred(trace);
  folder.scrub();
}

function wordsOf(error: unknown): string {
  return error instanceof EdgeError
    ? error.message
    : `it answers ${(error as NodeJS.ErrnoException).code ?? "nothing known"}`;
}
