/**
 * What a check finds.
 */

/** One finding: where it is, what is wrong and what to do. */
export interface Problem {
  readonly file: string;
  readonly problem: string;
  readonly remedy: string;
}

/** A source file as checks see it; `path` is relative to the project's folder. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}
