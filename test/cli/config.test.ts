import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { durationText, sizeText } from "../../src/config/effective.ts";
import { parseDurationMs, parseSizeBytes } from "../../src/base/units.ts";
import { holdfast, holdfastWith } from "./holdfast.ts";

const HEAD = "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n";
const kubeconfigText = mintCluster().kubeconfig({
  server: "https://10.0.0.1:6443",
  user: "system:node:a",
  groups: ["system:nodes"],
});

function files(body: string) {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-config-"));
  writeFileSync(join(dir, "kubeconfig"), kubeconfigText);
  const config = join(dir, "config.yaml");
  writeFileSync(config, `${HEAD}kubeconfig: kubeconfig\n${body}`);
  return { dir, config };
}

test("validate refuses what run would refuse, with line and field, and names what can be used", async () => {
  const good = files("listen: 127.0.0.1:10299\n");
  expect(await holdfast("config", "validate", good.config)).toMatchObject({
    code: 0,
    stdout: `${good.config} can be used: https://10.0.0.1:6443, listening on 127.0.0.1:10299\n`,
  });
  const misspelt = files("stateDri: /x\n");
  expect(await holdfast("config", "validate", misspelt.config)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(
      `config.yaml:4: unknown field "stateDri" in HoldfastConfiguration, did you mean "stateDir"`,
    ),
  });
  const exposed = files("listen: 192.0.2.1:10268\n");
  expect((await holdfast("config", "validate", exposed.config)).code).toBe(1);
  writeFileSync(join(good.dir, "kubeconfig"), "{}");
  expect((await holdfast("config", "validate", good.config)).code).toBe(1);
});

test("show --effective says everything with who said it, and is a configuration that means the same", async () => {
  const { dir, config } = files("stateDir: state\nlimits: {linger: 90s, scopeMaxBytes: 100}\nnodeAgents: []\n");
  const env = { HOLDFAST_RETENTION: "48h" };
  const first = await holdfastWith(env, "config", "show", "--effective", "--config", config);
  expect([first.code, first.stderr]).toEqual([0, ""]);
  for (const line of [
    `stateDir: ${dir}/state  # file`,
    "listen: [ 127.0.0.1:10268 ]  # default",
    "nodeAgents: []  # file",
    "  linger: 90s  # file",
    "  scopeMaxBytes: 100  # file",
    "  retention: 48h  # environment",
    "  bookmarkInterval: 45s  # default",
  ])
    expect(first.stdout.split("\n")).toContain(line);
  expect(first.stdout).not.toContain("BEGIN");
  const again = join(dir, "again.yaml");
  writeFileSync(again, first.stdout);
  const second = await holdfast("config", "show", "--effective", again);
  const bare = (text: string) => text.replaceAll(/ {2}# \w+$/gm, "");
  expect(bare(second.stdout)).toBe(bare(first.stdout));
});

test("show prints the file as it is, migrate says that nothing is to be done, and a missing one is named", async () => {
  const { config, dir } = files("witness: false # mine\n");
  expect((await holdfast("config", "show", config)).stdout).toContain("witness: false # mine");
  expect((await holdfast("config", "migrate", config)).stdout).toContain("nothing to change");
  expect(await holdfast("config", "migrate", join(dir, "none.yaml"))).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("none.yaml"),
  });
  expect((await holdfast("config")).code).toBe(2);
  expect((await holdfast("config", "mend")).code).toBe(2);
});

test.each([0, 1, 999, 1_000, 90_000, 300_000, 604_800_000, 3_600_001])(
  "%d ms is written so that it is read again",
  (ms) => {
    expect(parseDurationMs(durationText(ms))).toBe(ms);
  },
);

test.each([1, 1_023, 1_024, 2 ** 20, 512 * 2 ** 20, 2 ** 30, 2 ** 30 + 1])(
  "%d bytes are written so that they are read again",
  (bytes) => {
    expect(parseSizeBytes(sizeText(bytes))).toBe(bytes);
  },
);
