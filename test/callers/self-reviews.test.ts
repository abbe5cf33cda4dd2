import { describe, expect, test } from "bun:test";
import { ReviewMemory } from "../../src/callers/review-memory.ts";
import { reviewedCopies, SelfReviews } from "../../src/callers/self-reviews.ts";
import { envelope, message, text } from "../../src/kube/protobuf-wire.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { ManualClock } from "../support/model.ts";

const about = (spec: object) => Buffer.from(JSON.stringify({ kind: "SelfSubjectAccessReview", spec }));
const LIST_PODS = about({ resourceAttributes: { namespace: "shop", verb: "list", resource: "pods" } });
const question = (body: Uint8Array, resource = "selfsubjectaccessreviews") => ({
  principal: "p",
  resource,
  path: `/apis/authorization.k8s.io/v1/${resource}`,
  accept: "application/json",
  contentType: "application/json",
  body,
});
const decision = (allowed: boolean) => ({
  contentType: "application/json",
  body: new Uint8Array(Buffer.from(JSON.stringify({ status: { allowed } }))),
});

function bench(store = new MemoryStore()) {
  const clock = new ManualClock();
  const copies = new Set<string>();
  const reviews = new SelfReviews(store, (principal, { group, resource }) =>
    copies.has(`${principal} ${group}/${resource}`),
  );
  const memory = new ReviewMemory(clock, (words) => Bun.hash(words).toString(), reviews);
  return { store, clock, copies, memory };
}

describe("a yes to a caller's question about itself", () => {
  test("stands as long as there is a copy of what it speaks of, over a restart too", async () => {
    const { store, clock, copies, memory } = bench();
    memory.remember(question(LIST_PODS), decision(true));
    await clock.pass(301_000);
    expect(memory.recall(question(LIST_PODS))).toBeUndefined();
    copies.add("p /pods");
    expect(memory.recall(question(LIST_PODS))).toEqual(decision(true));
    const later = bench(store);
    expect(later.memory.recall(question(LIST_PODS))).toBeUndefined();
    later.copies.add("p /pods");
    expect(later.memory.recall(question(LIST_PODS))).toEqual(decision(true));
    expect(later.memory.recall({ ...question(LIST_PODS), principal: "q" })).toBeUndefined();
  });

  test("ends with a no", async () => {
    const { clock, copies, memory } = bench();
    copies.add("p /pods");
    memory.remember(question(LIST_PODS), decision(true));
    memory.remember(question(LIST_PODS), decision(false));
    await clock.pass(31_000);
    expect(memory.recall(question(LIST_PODS))).toBeUndefined();
  });

  test("about somebody else stands for its five minutes alone", async () => {
    const { clock, copies, memory } = bench();
    copies.add("p /pods");
    memory.remember(question(LIST_PODS, "subjectaccessreviews"), decision(true));
    await clock.pass(301_000);
    expect(memory.recall(question(LIST_PODS, "subjectaccessreviews"))).toBeUndefined();
  });

  test("is one of five hundred at most; those whose copies are gone make room first", () => {
    const { store, copies, memory } = bench();
    copies.add("p /pods");
    memory.remember(question(LIST_PODS), decision(true));
    for (let i = 0; i < 600; i++)
      memory.remember(question(about({ resourceAttributes: { resource: `r${i}` } })), decision(true));
    expect(store.valueNames("self-review/").length).toBeLessThanOrEqual(500);
    const later = bench(store);
    later.copies.add("p /pods");
    expect(later.memory.recall(question(LIST_PODS))).toBeDefined();
  });
});

describe("what a question is about", () => {
  const protobuf = (kind: string, spec: readonly Uint8Array[]) =>
    envelope("authorization.k8s.io/v1", kind, [message(1, []), message(2, spec)]);
  test.each([
    ["a resource", LIST_PODS, { group: "", resource: "pods", namespace: "shop" }],
    ["everything in a namespace", about({ namespace: "shop" }), { group: "*", resource: "*", namespace: "shop" }],
    ["a path", about({ nonResourceAttributes: { path: "/metrics" } }), undefined],
    ["nothing that can be read", Buffer.from("{"), undefined],
    [
      "a resource, in protobuf",
      protobuf("SelfSubjectAccessReview", [
        message(1, [text(1, "shop"), text(2, "list"), text(3, "apps"), text(5, "deployments")]),
      ]),
      { group: "apps", resource: "deployments", namespace: "shop" },
    ],
    [
      "everything in a namespace, in protobuf",
      protobuf("SelfSubjectRulesReview", [text(1, "shop")]),
      { group: "*", resource: "*", namespace: "shop" },
    ],
    ["a path, in protobuf", protobuf("SelfSubjectAccessReview", [message(2, [text(1, "/metrics")])]), undefined],
  ])("%s", (_, body, expected) => {
    expect(reviewedCopies(body)).toEqual(expected!);
  });
});
