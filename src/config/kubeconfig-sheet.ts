/**
 * One reading of a kubeconfig: its path, what is odd in it, and the texts that
 * its fields lead to. Messages name the file, the field, the shape of what
 * stands there and the next step, never a value.
 */

import { X509Certificate } from "node:crypto";
import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { EdgeError } from "../base/errors.ts";
import { certificateBlocks } from "../certificates/pem.ts";
import type { ReadFile } from "./followed.ts";

/** What is wrong with a kubeconfig; stable. */
export type KubeconfigCode =
  | "KUBECONFIG_UNREADABLE" // the file is missing, forbidden or a folder
  | "KUBECONFIG_EMPTY"
  | "KUBECONFIG_NOT_YAML"
  | "KUBECONFIG_FIELD" // missing, of another type, or not the text it should be
  | "KUBECONFIG_CONTEXT" // a name that leads nowhere
  | "KUBECONFIG_UNSUPPORTED" // known to kubectl, no use here
  | "KUBECONFIG_FILE" // a file it names cannot be read
  | "KUBECONFIG_KEY_MISMATCH"
  | "KUBECONFIG_CHANGED"; // another server or kind of credential while we run

/** A kubeconfig cannot be used. */
export class KubeconfigError extends EdgeError {
  override readonly name = "KubeconfigError";

  constructor(
    readonly path: string,
    readonly field: string,
    readonly code: KubeconfigCode,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`Cannot use kubeconfig "${path}": ${field === "" ? "" : `${field} `}${problem}`, options);
  }
}

/** A text and the field that leads to it. */
export interface FieldText {
  readonly field: string;
  readonly text: string;
}

/** One reading. */
export class Sheet {
  readonly warnings: string[] = [];
  readonly unknown: string[] = [];

  constructor(
    readonly path: string,
    private readonly readFile: ReadFile,
  ) {}

  /** What a schema makes of a value; fields that it does not know are noted. */
  judged<S extends v.GenericSchema>(at: string, wanted: S, value: unknown): v.InferOutput<S> {
    const result = v.safeParse(wanted, value);
    const below = (field: string) => [at, field].filter((part) => part !== "").join(".");
    if (!result.success) {
      const issue = result.issues[0];
      const keys = (issue.path ?? [])
        .map(({ key }) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
        .join("");
      const field = below(keys.replace(/^\./, ""));
      if (issue.input === undefined) throw this.error(field, "KUBECONFIG_FIELD", "is missing; add it");
      throw this.error(
        field,
        "KUBECONFIG_FIELD",
        `should be ${issue.type === "string" ? "text" : issue.type === "boolean" ? "true or false" : issue.type === "array" ? "a list" : "a mapping"}, and is ${shapeOf(issue.input)}; correct it`,
      );
    }
    const known = (wanted as unknown as { entries: object }).entries;
    for (const field of Object.keys(value as object)) if (!(field in known)) this.unknown.push(below(field));
    return result.output;
  }

  /** The text of `NAME-data`, or of the file that `NAME` names; data wins, as in client-go. */
  content(
    at: string,
    name: string,
    data: string | null | undefined,
    file: string | null | undefined,
  ): FieldText | undefined {
    if (!isBlank(data)) {
      const field = `${at}.${name}-data`;
      const plain = data.replaceAll(/\s/g, "");
      if (plain.startsWith("-----BEGIN"))
        throw this.error(
          field,
          "KUBECONFIG_FIELD",
          `should be base64, and is PEM itself; encode it with base64 -w0, or name its file in ${name}`,
        );
      if (!/^[A-Za-z0-9+/]+={0,2}$/.test(plain))
        throw this.error(
          field,
          "KUBECONFIG_FIELD",
          `should be base64, and is ${data.length} characters with others among them; encode it with base64 -w0`,
        );
      return { field, text: Buffer.from(plain, "base64").toString("utf8") };
    }
    if (isBlank(file)) return undefined;
    const field = `${at}.${name}`;
    return { field, text: this.fileContent(field, this.resolved(file)) };
  }

  /** What a file holds that a field names. @throws {KubeconfigError} */
  fileContent(field: string, file: string): string {
    try {
      return this.readFile(file);
    } catch (error) {
      const { code } = error as { code?: string };
      const why =
        code === "ENOENT"
          ? "which is not there; put it there or name another"
          : code === "EACCES"
            ? "which this user may not read; run as root or change its owner"
            : `which cannot be read (${code})`;
      throw this.error(field, "KUBECONFIG_FILE", `names "${file}", ${why}`, error);
    }
  }

  /** The certificates of a text, without what stands around them. @throws {KubeconfigError} */
  certificates({ field, text: found }: FieldText): string {
    const blocks = certificateBlocks(found);
    if (blocks.length === 0)
      throw this.error(
        field,
        "KUBECONFIG_FIELD",
        `should be PEM certificates, and is ${shapeOf(found)}; put them there`,
      );
    for (const [index, block] of blocks.entries()) {
      try {
        new X509Certificate(block);
      } catch {
        throw this.error(
          field,
          "KUBECONFIG_FIELD",
          `holds ${blocks.length} PEM certificates, of which number ${index + 1} cannot be read; copy it anew`,
        );
      }
    }
    return `${blocks.join("\n")}\n`;
  }

  /** A file as the kubeconfig means it: from its own folder. */
  resolved(file: string): string {
    return resolve(dirname(this.path), file);
  }

  /** Notes what is odd but no reason to stop. */
  warn(problem: string): void {
    this.warnings.push(`kubeconfig "${this.path}": ${problem}`);
  }

  /** An error of this file. */
  error(field: string, code: KubeconfigCode, problem: string, cause?: unknown): KubeconfigError {
    return new KubeconfigError(this.path, field, code, problem, cause === undefined ? undefined : { cause });
  }
}

/** Whether nothing stands there. */
export function isBlank(value: string | null | undefined): value is "" | null | undefined {
  return value === undefined || value === null || value === "";
}

/** What kind of thing a value is, and how large; never the value. */
export function shapeOf(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (typeof value === "string") return value === "" ? "empty text" : `${value.length} characters of text`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === "object" ? "a mapping" : `a ${typeof value}`;
}
