/**
 * Manual pages of section 1, from the table of commands: what the parser takes
 * is what they say.
 *
 * Source: man(7).
 */

import type { CommandRow } from "./commands.ts";
import type { Flag } from "./flags.ts";

/** All pages by file name. @param date of the release, YYYY-MM-DD. */
export function manPages(commands: readonly CommandRow[], version: string, date: string): ReadonlyMap<string, string> {
  const head = (title: string) => `.TH ${title.toUpperCase()} 1 ${date} "Holdfast ${version}" "Holdfast"\n`;
  const pages = new Map([["holdfast.1", head("holdfast") + overview(commands)]]);
  for (const row of commands) pages.set(`holdfast-${row.name}.1`, head(`holdfast-${row.name}`) + page(row));
  return pages;
}

function overview(commands: readonly CommandRow[]): string {
  return [
    ".SH NAME",
    "holdfast \\- keeps a Kubernetes node at work while its link to the control plane is gone",
    ".SH SYNOPSIS",
    ".B holdfast",
    "COMMAND [options]",
    ".SH COMMANDS",
    ...commands.flatMap(({ name, summary }) => [".TP", `.BR holdfast\\-${escaped(name)} (1)`, text(summary)]),
    ".SH EXIT STATUS",
    "0 done or well, 1 failure, 2 usage, 3 degraded, offline or under way, 5 a check stood in the way.",
    ".SH FILES",
    ...["/etc/holdfast/config.yaml", "/var/lib/holdfast", "/run/holdfast/admin.sock"].flatMap((path) => [
      ".TP",
      `.I ${path}`,
    ]),
    "",
  ].join("\n");
}

function page({ name, summary, synopsis, flags, note }: CommandRow): string {
  return [
    ".SH NAME",
    `holdfast\\-${escaped(name)} \\- ${text(summary)}`,
    ".SH SYNOPSIS",
    ".nf",
    text(synopsis),
    ".fi",
    ...(Object.keys(flags).length === 0 ? [] : [".SH OPTIONS"]),
    ...Object.entries(flags).flatMap(option),
    ...(note === undefined ? [] : [".SH NOTES", ".nf", text(note), ".fi"]),
    ".SH SEE ALSO",
    ".BR holdfast (1)",
    "",
  ].join("\n");
}

function option([name, { short, value, about, otherwise, multiple }]: [string, Flag]): string[] {
  const spelled = [...(short === undefined ? [] : [`\\-${short}`]), `\\-\\-${escaped(name)}`].join(", ");
  const more = [
    ...(otherwise === undefined ? [] : [`Default: ${text(otherwise)}.`]),
    ...(multiple === true && !about.includes("repeated") ? ["May be repeated."] : []),
  ];
  return [
    ".TP",
    value === undefined ? `.B ${spelled}` : `.BI "${spelled} " "${escaped(value)}"`,
    `${text(about)}.`,
    ...more,
  ];
}

/** Lines that begin with a dot or an apostrophe are commands to roff, and a bare hyphen is no minus. */
function text(plain: string): string {
  return plain
    .split("\n")
    .map((line) => escaped(line).replace(/^([.'])/, "\\&$1"))
    .join("\n");
}

function escaped(plain: string): string {
  return plain.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll('"', "\\(dq");
}
