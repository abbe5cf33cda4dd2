/**
 * ADDRESS:PORT, as flags and fields have it; an IPv6 address stands in brackets.
 */

/** An address as it was written; `host` has lost its brackets and may be "". */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Takes ADDRESS:PORT apart; undefined for anything else. */
export function parseHostPort(text: string): HostPort | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]*)):([0-9]{1,5})$/.exec(text) ?? [];
  if (port === undefined || Number(port) > 65_535) return undefined;
  return { host: bracketed ?? plain ?? "", port: Number(port) };
}

/** Puts it together again. */
export function hostPortText({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
