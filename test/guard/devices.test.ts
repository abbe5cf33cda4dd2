/**
 * What the guard reads off the nodes about the devices that they are.
 */
import { expect, test } from "bun:test";
import { Devices, deviceWords } from "../../src/guard/devices.ts";
import { nodeFacts } from "../../src/guard/facts.ts";
import type { Happening } from "../../src/guard/happenings.ts";

const ID = "0123456789abcdef0123456789abcdef";

function node(name: string, holder?: string, refused?: string) {
  const annotations = {
    ...(holder === undefined ? {} : { "holdfast.dev/holder": holder }),
    ...(refused === undefined ? {} : { "holdfast.dev/refused-holder": refused }),
  };
  return nodeFacts({ metadata: { name, uid: `uid-${name}`, annotations } })!;
}

test.each([
  ["nodes of their own devices", [node("a", `${ID}/serial 1`), node("b", "ff00/serial 2"), node("c")], []],
  [
    "a node of which a second device has a copy",
    [node("a", `${ID}/serial 1`, `${ID}/serial 2`)],
    [
      `a HoldfastIdentityCopied The device ${ID}/serial 2 has a copy of this node's identity and was kept out; the node is the device ${ID}/serial 1`,
    ],
  ],
  [
    "the device that was given the node and had been refused before",
    [node("a", `${ID}/serial 2`, `${ID}/serial 2`)],
    [],
  ],
  [
    "one device under two names, on both",
    [node("a", `${ID}/serial 1`), node("b", `${ID}/serial 1`)],
    [
      `a HoldfastDeviceTwice The device ${ID}/serial 1 is also node b (${ID}/serial 1): delete the node that it is no more`,
      `b HoldfastDeviceTwice The device ${ID}/serial 1 is also node a (${ID}/serial 1): delete the node that it is no more`,
    ],
  ],
  [
    "two boards of one unsealed image, on both",
    [node("a", `${ID}/serial 1`), node("b", `${ID}/serial 2`)],
    [
      `a HoldfastMachineIdShared The device ${ID}/serial 1 shares its machine-id with node b (${ID}/serial 2): seal the image before it is flashed (holdfast image seal)`,
      `b HoldfastMachineIdShared The device ${ID}/serial 2 shares its machine-id with node a (${ID}/serial 1): seal the image before it is flashed (holdfast image seal)`,
    ],
  ],
])("%s", (_, nodes, wanted) => {
  const words = deviceWords(nodes).map((word) => `${word.node.name} ${word.reason} ${word.message}`);
  expect(words).toEqual(wanted);
});

test("a hundred boards of one image are counted, and what a node calls itself is cut", () => {
  const words = deviceWords(
    [...Array(100).keys()].map((at) => node(`n${at}`, `${ID}/${"\u0007x".repeat(4_000)}${at}`)),
  );
  for (const { message } of words) {
    expect(message.length).toBeLessThan(1_024);
    expect(message).not.toMatch(/[^\x20-\x7e]/);
  }
  expect(words[0]!.message).toContain("and 96 more");
});

test("each is told once, and again when it has been mended and comes back", () => {
  const told: Happening[] = [];
  let nodes = [node("a", `${ID}/serial 1`, `${ID}/serial 2`)];
  const devices = new Devices(() => nodes, { tell: (one) => void told.push(one) });
  devices.round();
  devices.round();
  expect(told.map(({ name, type, reason }) => [name, type, reason])).toEqual([
    ["a", "Warning", "HoldfastIdentityCopied"],
  ]);
  nodes = [node("a", `${ID}/serial 1`)];
  devices.round();
  nodes = [node("a", `${ID}/serial 1`, `${ID}/serial 2`)];
  devices.round();
  expect(told).toHaveLength(2);
});
