import { expect, test } from "bun:test";
import { ProfileError, profileOf } from "../../src/base/reexec.ts";

const GIB = 2 ** 30;

test.each([
  { what: "a machine with 1 GB", asked: undefined, machineBytes: 0.95 * GIB, profile: "small" },
  { what: "a blank line for a machine with 2 GB", asked: "", machineBytes: 1.9 * GIB, profile: "small" },
  { what: "a machine with 4 GB", asked: undefined, machineBytes: 3.7 * GIB, profile: "default" },
  { what: "small, asked for on a large machine,", asked: "small", machineBytes: 16 * GIB, profile: "small" },
  { what: "default, asked for on a tiny machine,", asked: "default", machineBytes: 0.4 * GIB, profile: "default" },
] as const)("profileOf $what is $profile", ({ asked, machineBytes, profile }) => {
  expect(profileOf(asked, machineBytes)).toBe(profile);
});

test("profileOf names what it does not know", () => {
  expect(() => profileOf("tiny", GIB)).toThrow(ProfileError);
  expect(() => profileOf("tiny", GIB)).toThrow('"small" or "default"');
});
