/**
 * The technician's page as HTML: no script, one style sheet, readable at 320 pixels.
 *
 * Whatever has a name of the outside world in it is escaped; no body of an
 * object and no credential is ever handed in.
 */

import { formatDuration } from "../base/units.ts";
import { coverageWords, gapWords } from "./coverage-report.ts";
import type { StatusReport } from "./status-report.ts";

/** What the page shows. */
export interface PageFacts {
  readonly report: StatusReport;
  /** The traffic light. */
  readonly light: "green" | "yellow" | "red";
  /** The oldest first, ms since the epoch. */
  readonly outages: readonly { readonly fromMs: number; readonly toMs: number }[];
  /** The way up, layer by layer. */
  readonly uplink: readonly {
    readonly id: string;
    readonly level: string;
    readonly cause: string;
    readonly next: string;
  }[];
  readonly disk: { readonly device: string; readonly usedPercent: number | undefined };
}

/** One line of style, whose hash stands in the page's policy. */
export const STYLE =
  "body{font:16px/1.4 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:.75rem;color:#1b1b1b;background:#fff}h1{font-size:1.25rem}h2{font-size:1.05rem;margin:1.4rem 0 .4rem}.light div{min-width:0;overflow-wrap:anywhere}.light{display:flex;gap:.75rem;align-items:center;padding:.75rem;border-radius:.5rem;color:#fff}.green{background:#1a7f37}.yellow{background:#8a5a00}.red{background:#b42318}.dot{flex:none;width:1.5rem;height:1.5rem;border-radius:50%;background:#fff}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .4rem;border-bottom:1px solid #ddd;overflow-wrap:anywhere}svg{width:100%;height:2.5rem;display:block;background:#dff3e4}.muted{color:#555;font-size:.875rem}@media(max-width:30rem){table{table-layout:fixed}td,th{font-size:.9rem;padding:.25rem}}input,button{font-size:1.25rem;padding:.4rem;max-width:100%;box-sizing:border-box}";
const DAY_MS = 86_400_000;
const SHOWN_MS = 7 * DAY_MS;
const MAX_PODS = 200;

/** The page behind the PIN. */
export function pageOf({ report, light, outages, uplink, disk }: PageFacts): string {
  const { link, nowMs, coverage, certificates, conditions } = report;
  const words = coverage === undefined ? "nobody has looked yet which pods would come back" : coverageWords(coverage);
  return documentOf(
    `<div class="light ${light}"><span class="dot"></span><div><strong>${escaped(link.state.toUpperCase())} for ${formatDuration(nowMs - link.sinceMs)}</strong><br>${escaped(words)}</div></div>
${section(
  "To look at",
  conditions.map(({ message, next = "" }) => [message, next]),
  ["What", "Next step"],
)}
<h2>Outages, last seven days</h2>${timeline(outages, nowMs)}
${section(
  "Uplink",
  uplink.map(({ id, level, cause, next }) => [
    id.replace(/^network\//, ""),
    level,
    next === "" ? cause : `${cause} (${next})`,
  ]),
  ["Layer", "State", "Finding"],
)}
${section(
  "Pods after a restart while cut",
  (coverage?.pods ?? [])
    .slice(0, MAX_PODS)
    .map(({ namespace, name, comesBack, missing, unknown }) => [
      `${namespace}/${name}`,
      comesBack,
      [...missing, ...unknown].map(gapWords).join(", "),
    ]),
  ["Pod", "Comes back", "For want of"],
)}
${section(
  "Certificates",
  certificates.map(({ name, notAfterMs }) => [
    name,
    notAfterMs < nowMs
      ? `ended ${formatDuration(nowMs - notAfterMs)} ago`
      : `${Math.floor((notAfterMs - nowMs) / DAY_MS)} days left`,
  ]),
  ["Which", "Ends"],
)}
${section("Disk", [[disk.device === "" ? "no disk of its own" : disk.device, disk.usedPercent === undefined ? "does not say how worn it is" : `up to ${disk.usedPercent} % of its life used`]], ["Device", "Wear"])}
<p class="muted">Holdfast ${escaped(report.version)}, ${new Date(nowMs).toISOString()}</p>`,
    true,
  );
}

/** The way in. @param words what went wrong; "" at first. */
export function pinForm(words: string): string {
  return documentOf(
    `<h1>Holdfast</h1><form method="post" action="/pin"><label for="pin">PIN, from <code>holdfast page pin</code> on the node</label><p><input id="pin" name="pin" inputmode="numeric" autocomplete="off" autofocus maxlength="16"> <button>Show</button></p></form><p role="alert">${escaped(words)}</p>`,
    false,
  );
}

function documentOf(body: string, refreshes: boolean): string {
  const refresh = refreshes ? '<meta http-equiv="refresh" content="15">' : "";
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">${refresh}<title>Holdfast</title><style>${STYLE}</style></head><body>${body}</body></html>`;
}

function section(title: string, rows: readonly (readonly string[])[], head: readonly string[]): string {
  if (rows.length === 0) return "";
  const cells = (row: readonly string[], tag: string) =>
    row.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("");
  return `<h2>${escaped(title)}</h2><table><tr>${cells(head, "th")}</tr>${rows.map((row) => `<tr>${cells(row, "td")}</tr>`).join("")}</table>`;
}

/** A week from left to right; a cut is red and never thinner than the eye sees. */
function timeline(outages: PageFacts["outages"], nowMs: number): string {
  const startMs = nowMs - SHOWN_MS;
  const shown = outages.filter(({ toMs }) => toMs > startMs);
  const bars = shown.map(({ fromMs, toMs }) => {
    const x = (Math.max(0, fromMs - startMs) / SHOWN_MS) * 1_000;
    const width = Math.max(3, ((toMs - Math.max(fromMs, startMs)) / SHOWN_MS) * 1_000);
    return `<rect x="${Math.min(x, 997).toFixed(1)}" y="0" width="${width.toFixed(1)}" height="40" fill="#b42318"></rect>`;
  });
  const lostMs = shown.reduce((sum, { fromMs, toMs }) => sum + toMs - Math.max(fromMs, startMs), 0);
  const words =
    shown.length === 0
      ? "none"
      : `${shown.length}, ${formatDuration(lostMs)} in all; the last ended ${formatDuration(nowMs - shown.at(-1)!.toMs)} ago`;
  return `<svg viewBox="0 0 1000 40" preserveAspectRatio="none" role="img" aria-label="${escaped(words)}">${bars.join("")}</svg><p class="muted">${escaped(words)}</p>`;
}

function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}
