import { describe, expect, test } from "bun:test";
import { DEFAULT_PARAMETERS, readParameters } from "../../src/guard/parameters.ts";
import { termsOf } from "../../src/guard/terms.ts";
import { OPENYURT_AUTONOMY, OPENYURT_DURATION, OPT_IN_LABEL, RELEASED_LABEL } from "../../src/guard/names.ts";

describe("the guard's parameters", () => {
  test("without a ConfigMap the defaults hold", () => {
    const parameters = readParameters(undefined);
    expect(parameters).toMatchObject({ silentAfterMs: 40_000, statusReportIntervalMs: 300_000, problems: [] });
    expect(parameters.bound).toBeUndefined();
    expect(readParameters(DEFAULT_PARAMETERS)).toEqual(parameters);
  });

  test("what cannot be read is named and never ends protection", () => {
    const parameters = readParameters({ bound: "soon", "bound.edge1": "-1h", witnesses: "many", taint: "no" });
    expect(parameters.bound).toBeUndefined();
    expect(parameters.boundOf.get("edge1")).toBeUndefined();
    expect(parameters.problems.map((problem) => problem.split(":")[0])).toEqual(
      expect.arrayContaining(["bound", "bound.edge1", "witnesses", "taint"]),
    );
    expect(readParameters({ bound: 5 }).problems).toHaveLength(1);
  });
});

describe("a node's terms", () => {
  const parameters = readParameters({ bound: "24h", "bound.edge2": "0", "bound.edge3": "30m", controllers: "a, b," });
  const cases: readonly (readonly [string, object, object | undefined])[] = [
    ["no label", {}, undefined],
    ["an unknown value", { labels: { [OPT_IN_LABEL]: "perhaps" } }, undefined],
    ["held", { labels: { [OPT_IN_LABEL]: "hold" } }, { via: "label", boundMs: 86_400_000, asksWitnesses: false }],
    ["for ever by name", { name: "edge2", labels: { [OPT_IN_LABEL]: "true" } }, { boundMs: undefined }],
    [
      "witnessed",
      { name: "edge3", labels: { [OPT_IN_LABEL]: "witness" } },
      { boundMs: 1_800_000, asksWitnesses: true },
    ],
    ["released", { labels: { [OPT_IN_LABEL]: "hold", [RELEASED_LABEL]: "bound" } }, { released: "bound" }],
    ["OpenYurt's duration", { annotations: { [OPENYURT_DURATION]: "2h" } }, { via: "openyurt", boundMs: 7_200_000 }],
    ["OpenYurt's zero", { annotations: { [OPENYURT_DURATION]: "0" } }, { via: "openyurt", boundMs: undefined }],
    ["OpenYurt's old annotation", { annotations: { [OPENYURT_AUTONOMY]: "true" } }, { boundMs: 86_400_000 }],
    [
      "the name before the annotation",
      { name: "edge3", annotations: { [OPENYURT_DURATION]: "2h" } },
      { boundMs: 1_800_000 },
    ],
  ];
  test.each(cases)("%s", (_, node, expected) => {
    const terms = termsOf({ name: "edge1", ...node }, parameters);
    if (expected === undefined) expect(terms).toBeUndefined();
    else expect(terms).toMatchObject(expected);
  });

  test("OpenYurt's annotations count only while the parameters say so", () => {
    const without = readParameters({ openYurtAnnotations: "false" });
    expect(termsOf({ name: "edge1", annotations: { [OPENYURT_DURATION]: "2h" } }, without)).toBeUndefined();
  });
});
