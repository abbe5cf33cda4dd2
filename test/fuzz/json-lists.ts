/**
 * JSON lists and watches, scanned as they come, against JSON.parse of the whole.
 */

import { JsonListReader } from "../../src/kube/json-list-reader.ts";
import { JsonWatchReader } from "../../src/kube/json-watch-reader.ts";
import { MalformedError } from "../../src/kube/codec.ts";
import { bent, oddText, pieces } from "./bent.ts";
import type { Draw } from "./random.ts";

const SHAPE = { listKind: "ConfigMapList", apiVersion: "v1", isBare: true };

function value(draw: Draw, depth = 0): unknown {
  const way = draw.index(depth > 2 ? 4 : 6);
  if (way === 0) return oddText(draw);
  if (way === 1) return draw.of([0, -1.5, 1e21, 4503599627370497]);
  if (way === 2) return draw.of([true, false, null]);
  if (way === 3) return "";
  if (way === 4) return Array.from({ length: draw.index(3) }, () => value(draw, depth + 1));
  return Object.fromEntries(Array.from({ length: draw.index(3) }, () => [oddText(draw), value(draw, depth + 1)]));
}

function object(draw: Draw, index: number, kind?: string): Record<string, unknown> {
  const metadata = shuffled(draw, {
    name: `c-${index}${oddText(draw)}`,
    ...(draw.chance(0.8) ? { namespace: "shop" } : {}),
    uid: `u-${index}`,
    resourceVersion: String(100 + index),
    ...(draw.chance(0.3) ? { annotations: value(draw) } : {}),
  });
  const typed = kind === undefined ? {} : { kind, apiVersion: "v1" };
  return shuffled(draw, { ...typed, metadata, ...(draw.chance(0.6) ? { data: value(draw) } : {}) }, 0.3);
}

function shuffled<T extends object>(draw: Draw, from: T, share = 0.2): T {
  const entries = Object.entries(from);
  if (draw.chance(share)) entries.sort(() => draw.next() - 0.5);
  return Object.fromEntries(entries) as T;
}

function printed(draw: Draw, whole: unknown): Uint8Array {
  return Buffer.from(draw.chance(0.2) ? JSON.stringify(whole, null, draw.of([1, "\t"])) : JSON.stringify(whole));
}

/** @returns what differs, in words; undefined where both agree. */
export function jsonList(draw: Draw): string | undefined {
  const list = shuffled(draw, {
    kind: "ConfigMapList",
    apiVersion: "v1",
    metadata: { resourceVersion: "200", ...(draw.chance(0.2) ? { continue: "next" } : {}) },
    items: Array.from({ length: draw.index(5) }, (_, n) => object(draw, n)),
  });
  const isBent = draw.chance(0.5);
  const bytes = isBent ? bent(draw, printed(draw, list)) : printed(draw, list);
  const parts = pieces(draw, bytes);
  let ours: { items: unknown[]; resourceVersion: string };
  try {
    const reader = new JsonListReader();
    const items = parts.flatMap((part) => reader.push(part));
    const { resourceVersion } = reader.end();
    ours = { items: items.map((item) => JSON.parse(Buffer.from(item.bytes).toString())), resourceVersion };
    const wrong = items.find(({ meta }, n) => meta.name !== (ours.items[n] as any).metadata.name);
    if (wrong !== undefined) return `an item's metadata is another's: ${JSON.stringify(wrong.meta)}`;
  } catch (error) {
    if (!(error instanceof MalformedError)) return `threw ${String(error)} for ${text(bytes)}`;
    return isBent ? undefined : `refused ${text(bytes)}: ${error.message}`;
  }
  const theirs = parsed(bytes) as any;
  if (theirs === undefined) return `took what is no JSON: ${text(bytes)}`;
  const reference = { items: theirs.items ?? [], resourceVersion: textOf(theirs.metadata?.resourceVersion) };
  return same(ours, reference) ? undefined : `read ${JSON.stringify(ours)} of ${text(bytes)}`;
}

/** @returns what differs, in words; undefined where both agree. */
export function jsonWatch(draw: Draw): string | undefined {
  const events = Array.from({ length: draw.index(5) }, (_, n) => ({
    type: draw.of(["ADDED", "MODIFIED", "DELETED"]),
    object: object(draw, n, "ConfigMap"),
  }));
  const isBent = draw.chance(0.5);
  const good = Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(""));
  const bytes = isBent ? bent(draw, good) : good;
  const reader = new JsonWatchReader(SHAPE);
  const ours: string[] = [];
  try {
    for (const part of pieces(draw, bytes))
      for (const frame of reader.push(part))
        ours.push(
          "item" in frame ? `${frame.type} ${frame.item.meta.name} ${frame.item.meta.resourceVersion}` : frame.type,
        );
  } catch (error) {
    if (!(error instanceof MalformedError)) return `threw ${String(error)} for ${text(bytes)}`;
    if (!isBent) return `refused ${text(bytes)}: ${error.message}`;
  }
  const theirs: string[] = [];
  for (const line of text(bytes).split("\n")) {
    const event = parsed(Buffer.from(line)) as any;
    if (event === undefined) break;
    theirs.push(`${event.type} ${event.object?.metadata?.name} ${textOf(event.object?.metadata?.resourceVersion)}`);
  }
  if (!isBent && !same(ours, theirs)) return `read ${ours.join("; ")} of ${text(bytes)}`;
  const both = Math.min(ours.length, theirs.length);
  const isAlike = same(ours.slice(0, both), theirs.slice(0, both)) || ours.some((one) => !one.includes(" "));
  return isAlike ? undefined : `read ${ours.join("; ")} of ${text(bytes)}`;
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
const textOf = (one: unknown) => (typeof one === "string" ? one : "");
const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(text(bytes));
  } catch {
    return undefined;
  }
}
