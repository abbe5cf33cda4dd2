/**
 * Errors that nobody caught: one handler at a time has them.
 */

/** From now on this one has them; a daemon logs and goes on, a command says it and ends. */
export function onStray(handle: (error: unknown) => void): void {
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.removeAllListeners(event);
    process.on(event, handle);
  }
}
