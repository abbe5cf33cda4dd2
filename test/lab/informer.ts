/**
 * One client-go informer at the edge, and what it has told so far.
 */
import { appendFileSync } from "node:fs";
import { programPath } from "./build.ts";
import { type LabProcess, until } from "./processes.ts";
import type { World } from "./world.ts";

/** How an informer asks: each row reads the API in a way of its own. */
export interface InformerKind {
  readonly mode: "typed" | "dynamic" | "metadata";
  readonly content: "json" | "protobuf";
  /** Begin with a streaming list, as client-go does since 1.35. */
  readonly watchList: boolean;
}

/** Every way in which client-go reads; dynamic clients speak JSON alone. */
export const INFORMER_KINDS: readonly InformerKind[] = (
  [
    ["typed", "protobuf"],
    ["typed", "json"],
    ["dynamic", "json"],
    ["metadata", "protobuf"],
    ["metadata", "json"],
  ] as const
).flatMap(([mode, content]) => [true, false].map((watchList) => ({ mode, content, watchList })));

/** What an informer reads. */
export interface InformerQuery {
  readonly resource: string;
  readonly namespace?: string;
  readonly fieldSelector?: string;
}

/** One object, as far as identity and age go. */
export interface StoredItem {
  readonly key: string;
  readonly uid: string;
  readonly rv: string;
}

/** One line of the program. */
export interface InformerLine extends StoredItem {
  readonly event: "added" | "updated" | "deleted" | "synced" | "dump" | "error";
  readonly items?: readonly StoredItem[];
  readonly initial?: boolean;
  readonly message?: string;
  readonly atMs: number;
}

export function kindTitle({ mode, content, watchList }: InformerKind): string {
  return `${mode} ${content} ${watchList ? "streaming list" : "list, then watch"}`;
}

export class Informer implements AsyncDisposable {
  readonly lines: InformerLine[] = [];

  private constructor(
    readonly kind: InformerKind,
    private readonly process: LabProcess,
  ) {
    void this.read();
  }

  static start(world: World, kubeconfig: string, kind: InformerKind, query: InformerQuery): Informer {
    const flags = {
      kubeconfig,
      mode: kind.mode,
      content: kind.content,
      watchlist: String(kind.watchList),
      resource: query.resource,
      namespace: query.namespace ?? "",
      "field-selector": query.fieldSelector ?? "",
    };
    const command = [
      programPath("informers"),
      "-v=4",
      ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`),
    ];
    return new Informer(kind, world.startAtEdge("informers", command));
  }

  /** Changes seen after the first `from` lines; the initial ones left out. */
  changes(from = 0): InformerLine[] {
    return this.lines
      .slice(from)
      .filter((line) => ["added", "updated", "deleted"].includes(line.event) && line.initial !== true);
  }

  get errors(): string[] {
    return this.lines.filter((line) => line.event === "error").map((line) => line.message ?? "");
  }

  /** Waits until the store is filled. */
  async synced(timeoutMs = 60_000): Promise<readonly StoredItem[]> {
    const line = await until(
      `the informer (${kindTitle(this.kind)}) has synced`,
      () => this.find("synced"),
      timeoutMs,
    ).catch((error: Error) => {
      throw new Error(`${error.message}; its errors: ${this.errors.slice(-3).join("; ")}`);
    });
    return line.items ?? [];
  }

  /** The store now, sorted by key. */
  async dump(): Promise<readonly StoredItem[]> {
    const from = this.lines.length;
    this.process.write("dump\n");
    const line = await until(`the informer (${kindTitle(this.kind)}) has dumped`, () => this.find("dump", from));
    return line.items ?? [];
  }

  /**
   * What no informer may ever see: an object going backwards or told twice.
   *
   * @returns the offences in words; empty when time ran one way.
   */
  offences(): string[] {
    const offences: string[] = [];
    const last = new Map<string, InformerLine>();
    for (const line of this.changesAndInitial()) {
      const previous = last.get(line.uid);
      if (previous !== undefined) {
        if (BigInt(line.rv) < BigInt(previous.rv))
          offences.push(`${line.key} went back from ${previous.rv} to ${line.rv} (${line.event})`);
        if (line.rv === previous.rv && line.event === previous.event)
          offences.push(`${line.key} at ${line.rv} was told twice (${line.event})`);
        if (previous.event === "deleted")
          offences.push(`${line.key} came back from the dead at ${line.rv} (${line.event})`);
      }
      last.set(line.uid, line);
    }
    return offences;
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    await this.process.stop(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  private changesAndInitial(): InformerLine[] {
    return this.lines.filter((line) => ["added", "updated", "deleted"].includes(line.event));
  }

  private find(event: InformerLine["event"], from = 0): InformerLine | undefined {
    if (!this.process.isRunning) throw new Error(`the informer program has ended: ${this.process.log.slice(-1000)}`);
    return this.lines.slice(from).find((line) => line.event === event);
  }

  private async read(): Promise<void> {
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of this.process.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.lines.push(JSON.parse(line) as InformerLine);
      // Kept beside what the program says on stderr, for whoever reads a failure.
      if (lines.length > 0) appendFileSync(this.process.logPath, `${lines.join("\n")}\n`);
    }
  }
}
