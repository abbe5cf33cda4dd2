/**
 * Strategic merge against the rule in its plainest form, for patches without
 * directives: maps merge, null deletes, lists merge by their key or are
 * replaced, scalars of a merged list are added once.
 */

import { MERGE_KEYS, ruleOf, type FieldRules } from "../../src/kube/merge-keys.ts";
import { strategicMerge } from "../../src/kube/strategic-merge.ts";
import type { Json } from "../../src/kube/exact-json.ts";
import type { Draw } from "./random.ts";

type Fields = Record<string, Json>;

const KINDS = { Pod: MERGE_KEYS.Pod, Node: MERGE_KEYS.Node } as const;

const condition = (draw: Draw): Json => ({ type: draw.of(["A", "B", "C"]), status: draw.of(["True", "False"]) });
const container = (draw: Draw): Json => ({
  name: draw.of(["a", "b", "c"]),
  image: draw.of(["x", "y"]),
  ...(draw.chance(0.4)
    ? {
        ports: several(
          draw,
          (one) => ({ containerPort: one.of([80, 443]), name: one.of(["h", "s"]) }),
          "containerPort",
        ),
      }
    : {}),
});

/** Up to three, no two with the same key. */
function several(draw: Draw, make: (draw: Draw) => Json, key?: string): Json[] {
  const items = Array.from({ length: draw.index(4) }, () => make(draw));
  if (key === undefined) return [...new Map(items.map((item) => [JSON.stringify(item), item])).values()];
  return [...new Map(items.map((item) => [(item as Fields)[key], item])).values()];
}

function drawn(draw: Draw, isPatch: boolean): Fields {
  const maybe = (name: string, value: Json): Fields => (draw.chance(0.5) ? { [name]: value } : {});
  const gone = (value: Json): Json => (isPatch && draw.chance(0.2) ? null : value);
  return {
    ...maybe("metadata", {
      ...maybe("labels", gone({ ...maybe("a", gone("1")), ...maybe("__proto__x", gone("2")) })),
      ...maybe("finalizers", gone(several(draw, (one) => one.of(["f1", "f2", "f3"])))),
    }),
    ...maybe("spec", {
      ...maybe("containers", several(draw, container, "name")),
      ...maybe(
        "taints",
        several(draw, (one) => ({ key: one.of(["k", "l"]), effect: "NoSchedule" }), "key"),
      ),
      ...maybe("nodeName", gone("edge-1")),
      ...maybe("podCIDRs", gone(several(draw, (one) => one.of(["10.0.0.0/24", "10.1.0.0/24"])))),
    }),
    ...maybe("status", {
      ...maybe("conditions", several(draw, condition, "type")),
      ...maybe("phase", gone(draw.of(["Running", "Failed"]))),
      ...maybe(
        "addresses",
        several(draw, (one) => ({ type: one.of(["InternalIP", "Hostname"]), address: one.of(["a", "b"]) }), "type"),
      ),
    }),
  };
}

const isMap = (value: Json | undefined): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function slowly(original: Fields, patch: Fields, rules: FieldRules | undefined): Fields {
  const out: Fields = { ...original };
  for (const [field, value] of Object.entries(patch)) {
    const rule = ruleOf(rules, field);
    const present = out[field];
    if (value === null) delete out[field];
    else if (isMap(value)) out[field] = slowly(isMap(present) ? present : {}, value, rule.fields);
    else if (Array.isArray(value) && rule.mergeKey !== undefined) {
      const key = rule.mergeKey;
      const list = Array.isArray(present) ? [...present] : [];
      if (key === "") list.push(...value.filter((one) => !list.includes(one)));
      else
        for (const one of value as Fields[]) {
          const at = (list as Fields[]).findIndex((other) => JSON.stringify(other[key]) === JSON.stringify(one[key]));
          if (at < 0) list.push(slowly({}, one, rule.fields));
          else list[at] = slowly(list[at] as Fields, one, rule.fields);
        }
      out[field] = list;
    } else out[field] = value;
  }
  return out;
}

/** How items are ordered, an oracle of its own holds (test/kube). */
function inAnyOrder(value: Json): Json {
  if (Array.isArray(value))
    return value.map(inAnyOrder).toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  if (!isMap(value)) return value;
  const sorted = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(sorted.map(([key, one]) => [key, inAnyOrder(one)]));
}

/** @returns what differs, in words; undefined where both agree. */
export function strategicMerges(draw: Draw): string | undefined {
  const kind = draw.of(["Pod", "Node"] as const);
  const [original, patch] = [drawn(draw, false), drawn(draw, true)];
  const before = JSON.stringify([original, patch]);
  const merged = strategicMerge(original, patch, kind);
  if (JSON.stringify([original, patch]) !== before) return `changed its arguments: ${before}`;
  const expected = slowly(original, patch, KINDS[kind]);
  return Bun.deepEquals(inAnyOrder(merged), inAnyOrder(expected))
    ? undefined
    : `${kind} ${before}: ours ${JSON.stringify(merged)}, reference ${JSON.stringify(expected)}`;
}
