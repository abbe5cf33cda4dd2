/**
 * The lab's processes: started with a log, ended by their own pid.
 *
 * Every pid and namespace goes into a ledger file before it is used, so that
 * `run.ts` can clear away what a killed test run left behind, and nothing else.
 */
import { appendFileSync, closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { clearCgroup } from "./cgroup.ts";
import { killShims, unmountBelow } from "./remains.ts";

/** The folder that holds all of one run's worlds and its ledger. */
export const LAB_DIR_VARIABLE = "HOLDFAST_LAB_DIR";

/** One running program. */
export class LabProcess implements AsyncDisposable {
  constructor(
    readonly name: string,
    readonly logPath: string,
    private readonly child: Bun.Subprocess<"pipe" | "ignore", number | "pipe", number>,
  ) {}

  get pid(): number {
    return this.child.pid;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** What it has logged so far. */
  get log(): string {
    return existsSync(this.logPath) ? readFileSync(this.logPath, "utf8") : "";
  }

  get exited(): Promise<number> {
    return this.child.exited;
  }

  get stdout(): ReadableStream<Uint8Array> {
    if (!(this.child.stdout instanceof ReadableStream)) throw new TypeError(`stdout of ${this.name} goes to its log`);
    return this.child.stdout;
  }

  /** Reads stdout from now on. @returns a function that gives what has come so far. */
  hear(): () => string {
    let heard = "";
    void (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of this.stdout) heard += decoder.decode(chunk, { stream: true });
    })();
    return () => heard;
  }

  write(text: string): void {
    if (typeof this.child.stdin !== "object" || this.child.stdin === null)
      throw new TypeError(`${this.name} has no stdin`);
    this.child.stdin.write(text);
    this.child.stdin.flush();
  }

  /** Sends the signal and waits for the end; SIGKILL after `graceMs`. */
  async stop(signal: NodeJS.Signals = "SIGTERM", graceMs = 20_000): Promise<void> {
    if (!this.isRunning) return;
    this.child.kill(signal);
    const killer = setTimeout(() => this.child.kill("SIGKILL"), graceMs);
    await this.child.exited;
    clearTimeout(killer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** How a program is started. */
export interface StartOptions {
  readonly logPath: string;
  readonly env?: Readonly<Record<string, string>>;
  /** "pipe" hands stdin and stdout to the caller; the log then holds stderr alone. */
  readonly stdio?: "log" | "pipe";
}

/** Starts a program; stdout and stderr are appended to its log. */
export function startProcess(name: string, command: readonly string[], options: StartOptions): LabProcess {
  const log = openSync(options.logPath, "a");
  const isPiped = options.stdio === "pipe";
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...options.env },
    stdin: isPiped ? "pipe" : "ignore",
    stdout: isPiped ? "pipe" : log,
    stderr: log,
  });
  closeSync(log);
  record(`process ${child.pid} ${startTime(child.pid) ?? "?"}`);
  return new LabProcess(name, options.logPath, child as Bun.Subprocess<"pipe" | "ignore", number | "pipe", number>);
}

/** How a short program ended. */
export interface Output {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly tookMs: number;
}

/** Runs a short program to its end; killed after `timeoutMs`, which shows as a non-zero exit code. */
export async function runProcess(
  command: readonly string[],
  options: {
    readonly input?: string;
    readonly env?: Readonly<Record<string, string>>;
    readonly timeoutMs?: number;
  } = {},
): Promise<Output> {
  const startedMs = performance.now();
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...options.env },
    stdin: options.input === undefined ? "ignore" : new Blob([options.input]),
    stdout: "pipe",
    stderr: "pipe",
    timeout: options.timeoutMs ?? 60_000,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { exitCode, stdout, stderr, tookMs: performance.now() - startedMs };
}

/**
 * Waits for a condition.
 *
 * @param claim completes the sentence "Waited in vain until ...".
 * @param look returns undefined or false as long as it does not hold; a throw counts as not yet.
 * @throws {Error} with the claim and the last failure, after `timeoutMs`.
 */
export async function until<T>(claim: string, look: () => T | Promise<T>, timeoutMs = 30_000): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs;
  let lastFailure: unknown;
  for (;;) {
    try {
      const seen = await look();
      if (seen !== undefined && seen !== null && seen !== false) return seen;
    } catch (error) {
      lastFailure = error;
    }
    if (performance.now() > deadline)
      throw new Error(`Waited ${timeoutMs} ms in vain until ${claim}${describe(lastFailure)}`, { cause: lastFailure });
    await Bun.sleep(50);
  }
}

function describe(failure: unknown): string {
  return failure === undefined ? "" : `: ${failure instanceof Error ? failure.message : String(failure)}`;
}

/** Writes down what must be gone at the end of the run. */
export function record(line: string): void {
  const directory = process.env[LAB_DIR_VARIABLE];
  if (directory !== undefined) appendFileSync(join(directory, "ledger"), `${line}\n`);
}

/** Ends the processes and removes the namespaces, cgroups and mounts that a run wrote down and left behind. */
export function clearLeftovers(directory: string): void {
  const path = join(directory, "ledger");
  if (!existsSync(path)) return;
  const entries = readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" "));
  for (const [kind, pid, started] of entries) {
    // The start time tells our process from a later one that got its number.
    if (kind === "process" && startTime(Number(pid)) === started) process.kill(Number(pid), "SIGKILL");
  }
  for (const [kind, name = ""] of entries) {
    if (kind === "cgroup") {
      killShims(directory);
      clearCgroup(name);
    }
    if (kind === "namespace" && existsSync(`/run/netns/${name}`)) Bun.spawnSync(["ip", "netns", "del", name]);
  }
  unmountBelow(directory);
}

/** Field 22 of /proc/PID/stat, counted after the command's closing parenthesis. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}
