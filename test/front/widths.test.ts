/**
 * A long list takes several seats: what one caller has on its way at once is
 * bounded by bytes as well as by requests.
 */

import { expect, test } from "bun:test";
import { requestInfo } from "../../src/front/request-info.ts";
import { Widths } from "../../src/front/widths.ts";

const LIST = requestInfo("GET", "/api/v1/pods");
const MB = 1024 * 1024;

test("a list is as wide as the last of its collection was long, and no wider than eight seats", () => {
  const widths = new Widths();
  expect(widths.of(LIST)).toBe(2);
  for (const [bytes, width] of [
    [100, 1],
    [MB, 4],
    [100 * MB, 8],
  ] as const) {
    const answer = { sentBytes: bytes };
    widths.begun(LIST, answer);
    widths.ended(answer);
    expect(widths.of(LIST)).toBe(width);
  }
});

test("a short page hides how long the whole was by half alone", () => {
  const widths = new Widths();
  for (const sentBytes of [2 * MB, 100]) {
    const answer = { sentBytes };
    widths.begun(LIST, answer);
    widths.ended(answer);
  }
  expect(widths.of(LIST)).toBe(4);
});

test("of an unknown collection each list at work makes the next one wider, and one that is not taken tells its length", () => {
  const widths = new Widths();
  widths.begun(LIST, { sentBytes: 0 });
  expect(widths.of(LIST)).toBe(4);
  expect(widths.of(requestInfo("GET", "/api/v1/services"))).toBe(2);
  const stalled = { sentBytes: 0 };
  widths.begun(LIST, stalled);
  stalled.sentBytes = 10 * MB;
  expect(widths.of(LIST)).toBe(8);
});

test("an object, by its name or a selector of it, takes one seat", () => {
  const widths = new Widths();
  for (const target of ["/api/v1/namespaces/shop/pods/web-0", "/api/v1/pods?fieldSelector=metadata.name%3Dweb-0"])
    expect(widths.of(requestInfo("GET", target))).toBe(1);
});
