import { expect, test } from "bun:test";
import { nearest } from "../../src/base/nearest.ts";

test("nearest allows a slip in three letters, and any case", () => {
  expect(nearest("rn", ["run", "status"])).toBe("run");
  expect(nearest("x", ["run", "status"])).toBeUndefined();
  expect(nearest("--stat-dir", ["--state-dir", "--config"])).toBe("--state-dir");
  expect(nearest("stateDIR", ["stateDir", "listen"])).toBe("stateDir");
});
