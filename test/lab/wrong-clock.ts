/**
 * A clock that is wrong, for the processes of a test and nobody else: C programs
 * read it by libfaketime, our own builds of Go programs from a shared page.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { OFFSET_VARIABLE, writeOffset } from "./clock-overlay.ts";
import { fakeClockLibrary } from "./requirements.ts";

export class WrongClock {
  private readonly text: string;
  private readonly page: string;

  /** Right until it is set. @param directory where its files are made. */
  constructor(directory: string) {
    this.text = join(directory, "clock");
    this.page = join(directory, "clock-offset");
    this.tellTheTruth();
  }

  /** The environment of a program that is to live in it. */
  get env(): Record<string, string> {
    return {
      LD_PRELOAD: fakeClockLibrary ?? "",
      FAKETIME_TIMESTAMP_FILE: this.text,
      FAKETIME_NO_CACHE: "1",
      // The monotonic clock does not jump on a real machine either.
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      TZ: "UTC",
    };
  }

  /** The environment of a Go program that was built for it. */
  get goEnv(): Record<string, string> {
    return { TZ: "UTC", [OFFSET_VARIABLE]: this.page };
  }

  /** Sets it; it goes on from there. */
  set(timeMs: number): void {
    this.write(Math.round((timeMs - Date.now()) / 1000));
  }

  tellTheTruth(): void {
    this.write(0);
  }

  private write(offsetSeconds: number): void {
    writeFileSync(this.text, `${offsetSeconds < 0 ? "" : "+"}${offsetSeconds}\n`);
    writeOffset(this.page, offsetSeconds);
  }
}
