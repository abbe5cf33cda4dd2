/**
 * k9s at a cut node: what a person has looked at while the link stood, they
 * find again in a k9s that is started in the cut.
 */
import { test } from "bun:test";
import { join } from "node:path";
import { isBuilt, programPath } from "./build.ts";
import { furnish } from "./person-world.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";
import { Terminal } from "./terminal.ts";
import { startWorld, type World } from "./world.ts";

const why =
  whyWithoutHoldfast ??
  (Bun.which("tmux") === null ? "tmux is not installed" : undefined) ??
  (isBuilt("k9s") ? undefined : "k9s is not built; --long builds it");

/** What is looked at, by k9s's own commands, and what its table then shows. */
const VIEWS = [
  ["pods all", /pods\(all\)[^]*web-0[^]*web-1/],
  ["nodes", /nodes[^]*edge1/],
  ["deploy all", /deployments\(all\)[^]*web /],
] as const;

test.skipIf(why !== undefined)(
  titled("k9s shows at a cut node what it showed before", why),
  async () => {
    await using world = await startWorld();
    await furnish(world);
    const token = await world.tokenFor("person", ["*"]);
    const holdfast = await world.startHoldfast();
    const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, { token });
    {
      await using online = k9s(world, kubeconfig);
      await look(online);
    }

    world.cut();

    await using cut = k9s(world, kubeconfig);
    await look(cut);
  },
  240_000,
);

function k9s(world: World, kubeconfig: string): Terminal {
  const command = [programPath("k9s"), "--kubeconfig", kubeconfig, "--headless", "--refresh", "1"];
  return Terminal.start(world, command, { K9S_CONFIG_DIR: join(world.directory, "k9s") });
}

async function look(terminal: Terminal): Promise<void> {
  await terminal.shows(/Context:|pods|Pods|<0>/);
  for (const [view, shown] of VIEWS) {
    await go(terminal, view);
    await terminal.shows(shown);
  }
  await go(terminal, "pods all");
  await terminal.shows(/web-1/);
  await terminal.type("/", ..."web-0", "Enter");
  await terminal.shows(/pods\(all\)\[1\]/i);
  await terminal.type("y");
  await terminal.shows(/kind: Pod[^]*name: web-0/);
}

/** Types a command of k9s. */
async function go(terminal: Terminal, view: string): Promise<void> {
  await terminal.type(":", ...view.split("").map((key) => (key === " " ? "Space" : key)), "Enter");
}
