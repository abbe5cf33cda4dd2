import { expect, test } from "bun:test";
import { Race } from "../../src/base/race.ts";

test("the first to come decides, and the rest is not heard", async () => {
  const race = new Race<string>();
  const late = Promise.withResolvers<string>();
  race.enter(late.promise);
  expect(race.isOver).toBe(false);
  race.win("first");
  expect(race.isOver).toBe(true);
  late.reject(new Error("late"));
  race.lose(new Error("later"));
  expect(await race.over).toBe("first");
});

test("what comes first may be an error", async () => {
  const race = new Race<string>();
  race.enter(Promise.reject(new Error("broke")));
  await expect(race.over).rejects.toThrow("broke");
  expect(race.isOver).toBe(true);
});
