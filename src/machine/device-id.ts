/**
 * What tells one device from another that was made from the same card.
 *
 *   machine-id / board        4c1f.../serial 10000000a1b2c3d4
 *
 * systemd's machine-id is copied with the card; the board is not: its serial
 * number (a device tree's, else the firmware's), else the address that its
 * first wired interface was made with. A board that tells nothing of itself is
 * known by its machine-id alone, and a copy of it cannot be told from it.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Where a board's serial number stands: a Raspberry Pi's, a server's. */
const SERIALS = [
  "sys/firmware/devicetree/base/serial-number",
  "sys/class/dmi/id/board_serial",
  "sys/class/dmi/id/product_serial",
] as const;
/** What firmware says that knows none. */
const NO_SERIAL =
  /^(0+|none|n\/a|unknown|default string|not specified|not applicable|to be filled.*|system serial.*)?$/i;
const MAX_TEXT = 64;
/** The kernel's word for an address that came with the hardware. */
const PERMANENT = "0";

/** This device, in words that hold no secret and at most 130 characters; undefined where it has no machine-id. @param root of the file system. */
export function deviceIdOf(root = "/"): string | undefined {
  const machineId = textOf(join(root, "etc/machine-id"));
  if (!/^[0-9a-f]{32}$/.test(machineId)) return undefined;
  return `${machineId}/${boardOf(root)}`;
}

function boardOf(root: string): string {
  for (const path of SERIALS) {
    const serial = textOf(join(root, path));
    if (!NO_SERIAL.test(serial)) return `serial ${serial}`;
  }
  const address = wiredAddress(join(root, "sys/class/net"));
  return address === undefined ? "a board without a serial number" : `address ${address}`;
}

/** Of the first interface that is hardware; bridges and tunnels come and go. */
function wiredAddress(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  return readdirSync(folder)
    .sort()
    .filter((name) => existsSync(join(folder, name, "device")))
    .filter((name) => textOf(join(folder, name, "addr_assign_type")) === PERMANENT)
    .map((name) => textOf(join(folder, name, "address")))
    .find((address) => /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(address) && address !== "00:00:00:00:00:00");
}

function textOf(path: string): string {
  try {
    // A device tree's texts end with a zero byte.
    return readFileSync(path, "latin1")
      .replaceAll(/[^\x20-\x7e]/g, "")
      .trim()
      .slice(0, MAX_TEXT);
  } catch {
    return "";
  }
}
