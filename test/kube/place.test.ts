/** When two places are one. */

import { expect, test } from "bun:test";
import { isSamePlace, type Place } from "../../src/kube/place.ts";

const place: Place = {
  addresses: [
    { type: "InternalIP", address: "10.96.7.7" },
    { type: "InternalIP", address: "fd00::7" },
  ],
  port: 10250,
};

test.each([
  ["itself, written again", structuredClone(place), true],
  ["no place", undefined, false],
  ["another port", { ...place, port: 10251 }, false],
  ["another order", { ...place, addresses: [...place.addresses].reverse() }, false],
  ["one address less", { ...place, addresses: place.addresses.slice(0, 1) }, false],
  ["another type", { ...place, addresses: [{ type: "ExternalIP", address: "10.96.7.7" }, place.addresses[1]!] }, false],
] as const)("a place beside %s", (_name, other, isSame) => {
  expect(isSamePlace(place, other)).toBe(isSame);
  expect(isSamePlace(other, place)).toBe(isSame);
});

test("no place beside no place is the same", () => {
  expect(isSamePlace(undefined, undefined)).toBe(true);
});
