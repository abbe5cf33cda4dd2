import { join } from "node:path";

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the program as a process, with nothing of this machine's settings. */
export function holdfast(...args: readonly string[]): Promise<Outcome> {
  return holdfastWith({}, ...args);
}

/** The same with settings of a person. */
export async function holdfastWith(
  env: Readonly<Record<string, string>>,
  ...args: readonly string[]
): Promise<Outcome> {
  const main = join(import.meta.dir, "..", "..", "src", "main.ts");
  const child = Bun.spawn([process.execPath, main, ...args], {
    env: { PATH: process.env["PATH"] ?? "", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}
