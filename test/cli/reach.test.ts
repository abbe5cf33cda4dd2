import { expect, test } from "bun:test";
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { holdfast } from "./holdfast.ts";

const folder = () => mkdtempSync(join(tmpdir(), "holdfast-reach-"));

/** Every command that asks the daemon, as it is typed. */
const COMMANDS = [["status"], ["get", "pods"], ["cert", "status"], ["cert", "rotate", "serving"]] as const;

test.each([
  ["no daemon", () => ["--state-dir", folder()]],
  ["a socket whose path is too long", () => ["--state-dir", join(folder(), "x".repeat(120))]],
  [
    "a configuration that cannot be used",
    () => {
      const config = join(folder(), "config.yaml");
      writeFileSync(config, "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nstateDri: .\n");
      return ["--config", config];
    },
  ],
])("%s is told in the same words by every command that asks the daemon", async (_, flagsOf) => {
  const flags = flagsOf();
  const told = await Promise.all(COMMANDS.map((words) => holdfast(...words, ...flags)));
  const bare = told.map(({ code, stderr }, index) => {
    expect(code).toBe(1);
    expect(stderr).toStartWith(`holdfast ${COMMANDS[index]![0]}: `);
    return stderr.slice(stderr.indexOf(": ") + 2);
  });
  expect(new Set(bare).size).toBe(1);
});

test.skipIf(process.getuid?.() !== 0 || Bun.which("setpriv") === null)(
  "who may not open the socket is told the very line to try, flags and all",
  async () => {
    const stateDir = folder();
    await using server = Bun.serve({ unix: join(stateDir, "admin.sock"), fetch: () => new Response() });
    chmodSync(join(stateDir, "admin.sock"), 0o600);
    chmodSync(stateDir, 0o755);
    expect(server.pendingRequests).toBe(0);
    const main = join(import.meta.dir, "..", "..", "src", "main.ts");
    const { stderr } = Bun.spawnSync([
      ...["setpriv", "--reuid", "65534", "--clear-groups", process.execPath, main],
      ...["cert", "rotate", "serving", "--state-dir", stateDir],
    ]);
    expect(stderr.toString()).toContain(`Try: sudo holdfast cert rotate serving --state-dir ${stateDir}\n`);
  },
);
