/**
 * Third parties' clients: what each is started with, and where what it needs is put.
 *
 * Their libraries come from their own registries at the versions written here,
 * once, into a folder beside the lab's programs (`--long` alone: minutes). What
 * the machine lacks takes away its clients and nobody else's.
 */
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { programPath, programsDir } from "../build.ts";

const HERE = import.meta.dir;
const FOLDER = join(programsDir, "clients");
const PYTHON = join(FOLDER, "python/bin");
const NODE_MODULES = join(FOLDER, "node/node_modules");
const NODE_SCRIPT = "with_client_node.js";
const JARS = join(FOLDER, "jars");

/** One client, as its own documentation starts it. */
export interface ThirdParty {
  readonly name: string;
  /** Prints a line "VERB POD STEP" for each pod that it is told of. */
  readonly command: (kubeconfig: string) => readonly string[];
  readonly env?: (kubeconfig: string) => Readonly<Record<string, string>>;
  /** Undefined when it can be started. */
  readonly why: string | undefined;
  /** Its watches are WebSockets, which a cut ends; it then lists at times. Default false. */
  readonly mayList?: boolean;
}

/** Fetches what is missing; what cannot be had is left out. */
export function fetchClients(): void {
  mkdirSync(FOLDER, { recursive: true });
  if (!existsSync(join(PYTHON, "kopf")) && Bun.which("python3") !== null) {
    run(["python3", "-m", "venv", join(FOLDER, "python")]);
    run([join(PYTHON, "pip"), "install", "--quiet", "-r", join(HERE, "requirements.txt")]);
  }
  mkdirSync(join(FOLDER, "node"), { recursive: true });
  // Beside its own packages: from here it would find ours.
  copyFileSync(join(HERE, NODE_SCRIPT), join(FOLDER, "node", NODE_SCRIPT));
  if (!existsSync(NODE_MODULES) && Bun.which("npm") !== null) {
    copyFileSync(join(HERE, "package.json"), join(FOLDER, "node/package.json"));
    run(["npm", "install", "--silent", "--prefix", join(FOLDER, "node")]);
  }
  if (!existsSync(JARS) && Bun.which("mvn") !== null) {
    const goal = ["dependency:copy-dependencies", `-DoutputDirectory=${JARS}`];
    run(["mvn", "-q", "-B", "-f", join(HERE, "java/pom.xml"), ...goal]);
  }
}

function run(command: readonly string[]): void {
  const done = Bun.spawnSync([...command], { stdio: ["ignore", "ignore", "inherit"] });
  if (!done.success) console.log(`lab: ${command.slice(0, 3).join(" ")} failed; its clients are skipped`);
}

const withPython = (name: string, file: string): ThirdParty => ({
  name,
  command: (kubeconfig) => [join(PYTHON, "python"), join(HERE, file), kubeconfig],
  why: missing(join(PYTHON, "kopf")),
});

/** All of them. */
export const THIRD_PARTIES: readonly ThirdParty[] = [
  withPython("Python kubernetes", "with_kubernetes.py"),
  withPython("Python kubernetes_asyncio", "with_kubernetes_asyncio.py"),
  withPython("kr8s", "with_kr8s.py"),
  withPython("lightkube", "with_lightkube.py"),
  withPython("pykube-ng", "with_pykube.py"),
  {
    name: "kopf",
    command: () => [join(PYTHON, "kopf"), "run", "--standalone", "-n", "shop", join(HERE, "with_kopf.py")],
    env: (kubeconfig) => ({ KUBECONFIG: kubeconfig }),
    why: missing(join(PYTHON, "kopf")),
  },
  {
    name: "@kubernetes/client-node under Node",
    command: (kubeconfig) => ["node", join(FOLDER, "node", NODE_SCRIPT), kubeconfig],
    why: missing(NODE_MODULES),
  },
  {
    name: "fabric8",
    command: (kubeconfig) => ["java", "-cp", join(JARS, "*"), join(HERE, "java/Informer.java"), kubeconfig],
    why: missing(JARS),
    mayList: true,
  },
  {
    name: "ruby kubeclient",
    command: (kubeconfig) => ["ruby", join(HERE, "with_kubeclient.rb"), kubeconfig],
    why: Bun.spawnSync(["sh", "-c", "ruby -e 'require \"kubeclient\"'"], { stderr: "ignore" }).success
      ? undefined
      : "ruby-kubeclient is not installed",
  },
  {
    name: "controller-runtime",
    command: (kubeconfig) => [programPath("controller"), kubeconfig],
    why: missing(programPath("controller")),
  },
];

function missing(path: string): string | undefined {
  return existsSync(path) ? undefined : `${path} is not there; --long fetches it`;
}
