/**
 * What is read from files that may be replaced at any time, also one after the
 * other, by a symbolic link, or half.
 *
 *   files unchanged               -> what is held
 *   files changed, content good   -> the new content, whole
 *   files changed, content bad    -> what is held; `problem` says why, looked at again in a second
 *
 * Invariant: what is handed out was good as a whole when it was read; a pair
 * that does not match is never handed out.
 */

import { readFileSync, statSync } from "node:fs";
import type { Clock } from "../base/clock.ts";

/** Reads a file once in a load, however often it is named: two looks may see two contents. */
export type ReadFile = (path: string) => string;

/** What is followed. */
export interface FollowedParts<T> {
  /** What it is, for people: 'kubeconfig "/etc/kubernetes/kubelet.conf"'. */
  readonly what: string;
  readonly clock: Clock;
  /** Makes the content from files, all of which it reads through the function; `held` is undefined at the first. @throws {EdgeError} on content that cannot be used. */
  readonly load: (read: ReadFile, held: T | undefined) => T;
  /** Is told once of each problem. */
  readonly onProblem?: (reason: string) => void;
}

/** Files are looked at no more often than this. */
const LOOK_EVERY_MS = 1_000;

/** How a followed file stands, for whoever tells people. */
export interface FollowedState {
  /** What it is: 'kubeconfig "/etc/kubernetes/kubelet.conf"'. */
  readonly what: string;
  /** Why the files' present content is not what is held; undefined when it is. */
  readonly problem: string | undefined;
}

/** A content that follows its files. */
export class Followed<T> implements FollowedState {
  #held: T | undefined = undefined;
  #files: readonly string[] = [];
  #stamp = "";
  #lookedAtMs: number;
  #problem: string | undefined;

  /** @throws what the first load throws. */
  constructor(private readonly parts: FollowedParts<T>) {
    this.#lookedAtMs = parts.clock.monotonicMs();
    this.#held = this.#load();
  }

  /** What it is, for people. */
  get what(): string {
    return this.parts.what;
  }

  /** Why the files' present content is not what is held; undefined when it is. */
  get problem(): string | undefined {
    this.#look();
    return this.#problem;
  }

  /** The content as the files have it now, or the last that was good. */
  read(): T {
    this.#look();
    return this.#held!;
  }

  #look(): void {
    const nowMs = this.parts.clock.monotonicMs();
    if (nowMs - this.#lookedAtMs < LOOK_EVERY_MS) return;
    this.#lookedAtMs = nowMs;
    if (this.#problem === undefined && stampOf(this.#files) === this.#stamp) return;
    try {
      this.#held = this.#load();
      this.#problem = undefined;
    } catch (error) {
      const { message } = error as Error;
      if (message !== this.#problem) this.parts.onProblem?.(message);
      this.#problem = message;
    }
  }

  #load(): T {
    const texts = new Map<string, string>();
    const stamps: string[] = [];
    const readOnce: ReadFile = (path) => {
      const known = texts.get(path);
      if (known !== undefined) return known;
      // Before the content: what changes between the two is seen at the next look.
      stamps.push(stampOf([path]));
      const text = readFileSync(path, "utf8");
      texts.set(path, text);
      return text;
    };
    const content = this.parts.load(readOnce, this.#held);
    this.#files = [...texts.keys()];
    this.#stamp = stamps.join();
    return content;
  }
}

function stampOf(files: readonly string[]): string {
  return files
    .map((file) => {
      try {
        const { mtimeMs, ino, size } = statSync(file);
        return `${mtimeMs}/${ino}/${size}`;
      } catch {
        return "missing";
      }
    })
    .join();
}
