/**
 * Joining as a device does that nobody sits at: by the text of its
 * `holdfast-join.yaml`, again and again until it is a node behind Holdfast.
 */

import { hostname } from "node:os";
import { EdgeError } from "../base/errors.ts";
import { ConfigError } from "../config/config-error.ts";
import { isAdopted, type AdoptOptions } from "./adopt.ts";
import { ClusterInfoError } from "./cluster-info.ts";
import { isJoined, join } from "./join.ts";
import { joinOptionsOf, JoinOptionsError, readJoinText } from "./join-options.ts";
import type { Machine } from "./machine.ts";
import { preflightBare } from "./preflight.ts";

/** It has not joined. */
export class DeviceJoinError extends EdgeError {
  override readonly name = "DeviceJoinError";
  readonly code = "DEVICE_JOIN";

  /** @param isFinal the file is at fault and another one must come; else the next try may find what was missing. */
  constructor(
    message: string,
    readonly isFinal: boolean,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What a device knows beside its file. */
export interface DeviceOptions extends AdoptOptions {
  /** The file's name, for errors. */
  readonly path: string;
  /** Default: this machine's. */
  readonly hostName?: string;
}

/**
 * Joins, or goes on where a power cut ended the last try.
 *
 * @param text YAML, decoded.
 * @throws {DeviceJoinError} in words that name the field or say what was missing; never a token.
 */
export async function joinDevice(
  machine: Machine,
  text: string,
  options: DeviceOptions,
): Promise<{ readonly nodeName: string; readonly server: string }> {
  const { path, hostName = hostname() } = options;
  try {
    const told = joinOptionsOf(readJoinText(path, text), hostName);
    const outcome = { nodeName: told.nodeName, server: told.server };
    if (isJoined(machine) && isAdopted(machine, options.stateDir)) return outcome;
    const { objections, unit } = preflightBare(machine, process.getuid?.() === 0);
    const objection = objections.find(({ mayIgnore }) => !mayIgnore);
    if (objection !== undefined || unit === undefined)
      throw new DeviceJoinError(`Cannot join: ${objection?.problem}; ${objection?.next}`, false);
    await join(told, { ...options, machine, hostName, unit });
    return outcome;
  } catch (error) {
    if (error instanceof DeviceJoinError) throw error;
    const isFinal =
      error instanceof JoinOptionsError ||
      error instanceof ConfigError ||
      (error instanceof ClusterInfoError && error.isFinal);
    throw new DeviceJoinError((error as Error).message, isFinal, { cause: error });
  }
}
