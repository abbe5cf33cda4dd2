import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "bun:test";
import { deviceIdOf } from "../../src/machine/device-id.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-device-id-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const MACHINE_ID = "0123456789abcdef0123456789abcdef";
const WIRED = {
  "sys/class/net/eth0/device/x": "",
  "sys/class/net/eth0/addr_assign_type": "0\n",
  "sys/class/net/eth0/address": "dc:a6:32:00:00:01\n",
};
let count = 0;

function machine(files: Record<string, string>): string {
  const root = join(folder, String(count++));
  for (const [path, text] of Object.entries({ "etc/machine-id": `${MACHINE_ID}\n`, ...files })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

test.each([
  ["a Raspberry Pi", { "sys/firmware/devicetree/base/serial-number": "10000000a1b2c3d4\0" }, "serial 10000000a1b2c3d4"],
  ["a board that names itself", { "sys/class/dmi/id/board_serial": "PF3X\n" }, "serial PF3X"],
  [
    "a board whose maker left the form empty, by its chassis",
    { "sys/class/dmi/id/board_serial": "To be filled by O.E.M.\n", "sys/class/dmi/id/product_serial": "9QZ\n" },
    "serial 9QZ",
  ],
  [
    "zeros are no number",
    { "sys/firmware/devicetree/base/serial-number": "0000000000000000\0", ...WIRED },
    "address dc:a6:32:00:00:01",
  ],
  ["one without a number, by its network interface", WIRED, "address dc:a6:32:00:00:01"],
  [
    "a random address is none",
    { ...WIRED, "sys/class/net/eth0/addr_assign_type": "1\n" },
    "a board without a serial number",
  ],
  [
    "nor is a bridge's",
    { "sys/class/net/br0/addr_assign_type": "0\n", "sys/class/net/br0/address": "02:00:00:00:00:01\n" },
    "a board without a serial number",
  ],
])("%s", (_, files, wanted) => {
  expect(deviceIdOf(machine(files as Record<string, string>))).toBe(`${MACHINE_ID}/${wanted}`);
});

test("without a machine-id there is no device to name", () => {
  expect(deviceIdOf(machine({ "etc/machine-id": "uninitialized\n" }))).toBeUndefined();
});
