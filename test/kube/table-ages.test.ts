import { describe, expect, test } from "bun:test";
import { ageColumns, tableWithAgesOfNow, withAgesOfNow } from "../../src/kube/table-ages.ts";

const CREATED =
  "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations.";
const JSONPATH = "Custom resource definition column (in JSONPath format): .metadata.creationTimestamp";
const NOW_MS = Date.UTC(2026, 10, 29, 12);

describe("a column is an age", () => {
  test.each([
    ["as printers describe it", { name: "Age", description: CREATED }, true],
    ["of a custom resource by its path", { name: "Age", description: JSONPATH }, true],
    ["not when it is a date under another name", { name: "Created At", description: CREATED }, false],
    ["not when it is of another time", { name: "Age", description: JSONPATH.replace("metadata", "status") }, false],
    ["not when it does not say", { name: "Age", description: "" }, false],
    ["not when it is no column", null, false],
  ])("%s", (_, column, isAge) => {
    expect(ageColumns(JSON.stringify([{ name: "Name" }, column]))).toEqual(isAge ? [1] : []);
  });
  test("and none without definitions", () => expect([ageColumns(undefined), ageColumns("{}")]).toEqual([[], []]));
});

describe("a row", () => {
  const row = (created: unknown, cells = '["a", "5s", "<none>"]') =>
    `{ "cells":${cells},"object":{"kind":"PartialObjectMetadata","metadata":{"name":"a","creationTimestamp":${JSON.stringify(created)},"x":1.0}}}`;
  test.each([
    [
      "gets the age of now and keeps every other byte",
      row("2026-11-29T11:00:00Z"),
      row("2026-11-29T11:00:00Z", '["a", "60m", "<none>"]'),
    ],
    ["without a time stays as it is", row(null), row(null)],
    ["with something else for a time stays as it is", row("yesterday"), row("yesterday")],
    ["without an object stays as it is", '{"cells":["a","5s"],"object":null}', '{"cells":["a","5s"],"object":null}'],
    ["with fewer cells stays as it is", row("2026-11-29T11:00:00Z", '["a"]'), row("2026-11-29T11:00:00Z", '["a"]')],
  ])("%s", (_, before, after) => {
    expect(Buffer.from(withAgesOfNow(Buffer.from(before), [1], NOW_MS)).toString()).toBe(after);
  });
});

test("a whole Table gets its ages of now wherever its members stand", () => {
  const table = (age: string) =>
    `{"kind":"Table","apiVersion":"meta.k8s.io/v1","rows":[{"cells":["a","${age}"],"object":{"metadata":{"creationTimestamp":"2026-11-27T12:00:00Z"}}},{"cells":["b","${age}"],"object":{"metadata":{"creationTimestamp":"2026-11-27T12:00:00Z"}}}],"columnDefinitions":[{"name":"Name"},{"name":"Age","description":"${CREATED}"}],"metadata":{}}\n`;
  expect(Buffer.from(tableWithAgesOfNow(Buffer.from(table("3s")), NOW_MS)).toString()).toBe(table("2d"));
});
