/**
 * The log: one JSON object a line on standard error, for journald.
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

/** A log that says nothing; for tests and short-lived commands. */
export const silentLog: Log = { info() {}, warn() {}, error() {} };
