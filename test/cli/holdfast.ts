import { join } from "node:path";

/** Runs the program as a process, with nothing of this machine's settings. */
export async function holdfast(
  ...args: readonly string[]
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const main = join(import.meta.dir, "..", "..", "src", "main.ts");
  const child = Bun.spawn([process.execPath, main, ...args], {
    env: { PATH: process.env["PATH"] ?? "" },
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
