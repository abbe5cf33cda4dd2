/**
 * The code under simulation, as it is or with a fault planted in it.
 *
 * A fault inside a private part of a module is planted in a copy of the
 * module's folder, by replacing a text that must occur exactly once: when the
 * code moves on, the fault fails loudly instead of quietly planting nothing.
 */

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as errors from "../../src/cache/scope-errors.ts";
import * as answers from "../../src/uplink/read-answer.ts";
import * as source from "../../src/uplink/scope-source.ts";
import * as scopes from "../../src/cache/scopes.ts";
import * as agents from "../../src/node/agent-return.ts";
import * as overlays from "../../src/node/overlays.ts";
import * as reconnect from "../../src/node/reconnect.ts";
import * as builtCallers from "../../src/daemon/callers.ts";
import * as builtCopies from "../../src/daemon/copies.ts";
import * as builtFront from "../../src/daemon/front.ts";
import * as builtNode from "../../src/daemon/node.ts";
import * as builtUplink from "../../src/daemon/uplink.ts";

/** The modules a world is built of. */
export interface Code {
  readonly Scopes: typeof scopes.Scopes;
  readonly Overlays: typeof overlays.Overlays;
  readonly AgentReturn: typeof agents.AgentReturn;
  readonly Reconnect: typeof reconnect.Reconnect;
  readonly UnreachableError: typeof source.UnreachableError;
  readonly UpstreamRefusedError: typeof source.UpstreamRefusedError;
  readonly ScopeTooLargeError: typeof errors.ScopeTooLargeError;
  readonly AskUpstreamError: typeof errors.AskUpstreamError;
  readonly readList: typeof answers.readList;
  readonly readWatch: typeof answers.readWatch;
  readonly buildUplink: typeof builtUplink.buildUplink;
  readonly buildCopies: typeof builtCopies.buildCopies;
  readonly buildNode: typeof builtNode.buildNode;
  readonly buildCallers: typeof builtCallers.buildCallers;
  readonly buildFront: typeof builtFront.buildFront;
}

/** One text of src replaced by another. */
export interface Edit {
  /** In src/cache, or with its folder: "node/reconnect.ts". */
  readonly file: string;
  readonly text: string;
  readonly by: string;
}

/** The code as it is. */
export const soundCode: Code = {
  ...errors,
  ...answers,
  ...source,
  ...scopes,
  ...overlays,
  ...agents,
  ...reconnect,
  ...builtUplink,
  ...builtCopies,
  ...builtNode,
  ...builtCallers,
  ...builtFront,
};

/** Rooms that edits are planted in, and what builds them. */
const COPIED: ReadonlySet<string> = new Set(["cache", "callers", "daemon", "front", "node", "uplink"]);

/** The code with edits; the rest of src is shared with the sound one. */
export async function editedCode(edits: readonly Edit[]): Promise<Code> {
  const src = join(import.meta.dir, "..", "..", "src");
  const folder = mkdtempSync(join(tmpdir(), "holdfast-simulation-"));
  try {
    symlinkSync(join(src, "..", "node_modules"), join(folder, "node_modules"));
    for (const room of readdirSync(src)) {
      if (COPIED.has(room)) cpSync(join(src, room), join(folder, room), { recursive: true });
      else symlinkSync(join(src, room), join(folder, room));
    }
    for (const { file, text, by } of edits) {
      const name = file.includes("/") ? file : `cache/${file}`;
      const path = join(folder, name);
      const before = readFileSync(path, "utf8");
      const times = before.split(text).length - 1;
      if (times !== 1) throw new Error(`Cannot plant a fault in src/${name}: "${text}" occurs ${times} times`);
      writeFileSync(
        path,
        before.replace(text, () => by),
      );
    }
    const load = (file: string) => import(join(folder, file));
    return {
      ...((await load("cache/scope-errors.ts")) as typeof errors),
      ...((await load("uplink/read-answer.ts")) as typeof answers),
      ...((await load("uplink/scope-source.ts")) as typeof source),
      ...((await load("cache/scopes.ts")) as typeof scopes),
      ...((await load("node/overlays.ts")) as typeof overlays),
      ...((await load("node/agent-return.ts")) as typeof agents),
      ...((await load("node/reconnect.ts")) as typeof reconnect),
      ...((await load("daemon/uplink.ts")) as typeof builtUplink),
      ...((await load("daemon/copies.ts")) as typeof builtCopies),
      ...((await load("daemon/node.ts")) as typeof builtNode),
      ...((await load("daemon/callers.ts")) as typeof builtCallers),
      ...((await load("daemon/front.ts")) as typeof builtFront),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
