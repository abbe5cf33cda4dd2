import { expect, test } from "bun:test";
import { formatDuration, parseDurationMs, parseSizeBytes } from "../../src/base/units.ts";

test.each([
  ["45s", 45_000],
  ["5m", 300_000],
  ["168h", 604_800_000],
  ["1h30m", 5_400_000],
  ["1.5s", 1_500],
  ["250ms", 250],
  ["0s", 0],
])("parseDurationMs reads %s", (text, ms) => {
  expect(parseDurationMs(text)).toBe(ms);
});

test.each(["", "5", "5 m", "m", "-5m", "5d", "1h 30m", "1..5s"])('parseDurationMs refuses "%s"', (text) => {
  expect(parseDurationMs(text)).toBeUndefined();
});

test.each([
  ["64Mi", 67_108_864],
  ["1Gi", 2 ** 30],
  ["2Ki", 2_048],
  ["500M", 5e8],
  ["1k", 1_000],
  ["1024", 1_024],
])("parseSizeBytes reads %s", (text, bytes) => {
  expect(parseSizeBytes(text)).toBe(bytes);
});

test.each(["", "Mi", "-1", "1.5Mi", "64MB", "64 Mi", "1e3"])('parseSizeBytes refuses "%s"', (text) => {
  expect(parseSizeBytes(text)).toBeUndefined();
});

test.each([
  [0, "0s"],
  [-5, "0s"],
  [45_000, "45s"],
  [59_700, "1m"],
  [300_000, "5m"],
  [302_000, "5m2s"],
  [11_520_000, "3h12m"],
  [7_200_000, "2h"],
  [172_800_000, "2d"],
  [1_000_000_000, "11d"],
])("formatDuration writes %d ms", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});
