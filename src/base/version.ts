/**
 * What this binary is; filled in by scripts/build-targets.ts.
 */

declare const HOLDFAST_VERSION: string | undefined;
declare const HOLDFAST_COMMIT: string | undefined;
declare const HOLDFAST_BUILT_AT: string | undefined;

/** Version of package.json; "dev" when run from source. */
export const VERSION: string = typeof HOLDFAST_VERSION === "undefined" ? "dev" : HOLDFAST_VERSION;

/** Commit it was built from; "unknown" when run from source. */
export const COMMIT: string = typeof HOLDFAST_COMMIT === "undefined" ? "unknown" : HOLDFAST_COMMIT;

/** The commit's time, ISO 8601: the same source builds the same bytes. */
export const BUILT_AT: string = typeof HOLDFAST_BUILT_AT === "undefined" ? "unknown" : HOLDFAST_BUILT_AT;
