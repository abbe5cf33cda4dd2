/**
 * The log, on standard error: one JSON object a line for journald, words for a terminal.
 *
 * A line is one change of state, not one request. Fields are chosen by the
 * caller; tokens, keys and object bodies never are.
 */

/** The fields of a log line: names to plain values; `undefined` is left out. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** Writes log lines of three levels. */
export interface Log {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/**
 * A log that writes JSON lines.
 *
 * @param write takes one line without its newline; standard error by default.
 */
export function jsonLog(write: (line: string) => void = (line) => process.stderr.write(`${line}\n`)): Log {
  const at =
    (level: string) =>
    (message: string, fields: LogFields = {}) =>
      write(JSON.stringify({ time: new Date().toISOString(), level, message, ...fields }));
  return { info: at("info"), warn: at("warn"), error: at("error") };
}

/** From the least to the most important. */
export const LOG_LEVELS: readonly LogLevel[] = ["info", "warn", "error"];

/** What is written: this and everything more important. */
export type LogLevel = "info" | "warn" | "error";

/**
 * A log for a person's terminal: time of day, level, words, fields.
 *
 * @param write takes one line without its newline; standard error by default.
 */
export function textLog(write: (line: string) => void = (line) => process.stderr.write(`${line}\n`)): Log {
  const at =
    (level: string) =>
    (message: string, fields: LogFields = {}) => {
      const named = Object.entries(fields).flatMap(([name, value]) =>
        value === undefined ? [] : [`${name}=${/^[^\s"=]+$/.test(String(value)) ? value : JSON.stringify(value)}`],
      );
      write([new Date().toISOString().slice(11, 19), level.padEnd(5), message, ...named].join(" "));
    };
  return { info: at("INFO"), warn: at("WARN"), error: at("ERROR") };
}

/** A log whose level can be set while it is used. */
export class LevelledLog implements Log {
  constructor(
    private readonly log: Log,
    public level: LogLevel = "info",
  ) {}

  info(message: string, fields?: LogFields): void {
    if (this.level === "info") this.log.info(message, fields);
  }

  /** Written at every level, as information: whoever asked for it waits for it. */
  always(message: string, fields?: LogFields): void {
    this.log.info(message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    if (this.level !== "error") this.log.warn(message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.log.error(message, fields);
  }
}

/** A log that says nothing; for tests and short-lived commands. */
export const silentLog: Log = { info() {}, warn() {}, error() {} };
