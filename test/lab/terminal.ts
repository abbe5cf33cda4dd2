/**
 * A program that draws on a terminal, at the edge: tmux holds the terminal,
 * types, and tells what stands on the screen.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "./processes.ts";
import type { World } from "./world.ts";

const SIZE = { columns: 200, rows: 50 } as const;
let count = 0;

/** One terminal with one program in it. */
export class Terminal implements AsyncDisposable {
  private constructor(
    private readonly world: World,
    private readonly socket: string,
    private readonly end: () => Promise<void>,
  ) {}

  /**
   * @param command without quotes: a shell reads it.
   * @param env beside a HOME of its own.
   */
  static start(world: World, command: readonly string[], env: Readonly<Record<string, string>> = {}): Terminal {
    const name = join(world.directory, `terminal-${count++}`);
    const configuration = `${name}.conf`;
    // In the foreground, so that it is a process of the world's and ends with it.
    writeFileSync(
      configuration,
      `set -g exit-empty off\nnew-session -d -x ${SIZE.columns} -y ${SIZE.rows} "${command.join(" ")}"\n`,
    );
    const process = world.startAtEdge("tmux", ["tmux", "-D", "-S", `${name}.sock`, "-f", configuration], {
      HOME: world.directory,
      TERM: "xterm-256color",
      ...env,
    });
    return new Terminal(world, `${name}.sock`, async () => await process.stop());
  }

  /** What stands on the screen; "" while there is none. */
  async screen(): Promise<string> {
    return (await this.tmux("capture-pane", "-p")).stdout;
  }

  /** Types keys by tmux's names, one after another. */
  async type(...keys: readonly string[]): Promise<void> {
    await this.tmux("send-keys", ...keys);
  }

  /** Waits until the screen shows this. @returns the screen. */
  async shows(what: RegExp, timeoutMs = 30_000): Promise<string> {
    let last = "";
    try {
      return await until(
        `the screen shows ${what}`,
        async () => {
          last = await this.screen();
          return what.test(last) ? last : undefined;
        },
        timeoutMs,
      );
    } catch (error) {
      throw new Error(`The screen was:\n${last}`, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  private async tmux(...args: readonly string[]) {
    return await this.world.runAtEdge(["tmux", "-S", this.socket, ...args], {}, 10_000);
  }
}
