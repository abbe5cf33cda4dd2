/**
 * Nodes without machines: `hollow-kubelets.ts` speaks for them, here they are commanded.
 */
import { join } from "node:path";
import type { LabProcess } from "./processes.ts";
import { LOOPBACK_URL, type World } from "./world.ts";

/** Hollow nodes of one world. */
export class HollowNodes {
  private readonly lines: AsyncIterator<string>;

  private constructor(private readonly process: LabProcess) {
    this.lines = linesOf(process.stdout)[Symbol.asyncIterator]();
  }

  /** Starts the process; no node yet. */
  static start(world: World): HollowNodes {
    const { ca } = world.pki;
    const script = join(import.meta.dir, "hollow-kubelets.ts");
    const files = [ca, world.pki.certificate("admin"), world.pki.key("admin")];
    return new HollowNodes(
      world.startCloudProgram("hollow-kubelets", [process.execPath, script, LOOPBACK_URL, ...files], "pipe"),
    );
  }

  /** Makes nodes, with labels given by an administrator. */
  async add(names: readonly string[], labels: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.order({ start: names, labels });
  }

  async silence(...names: readonly string[]): Promise<void> {
    await this.order({ silence: names });
  }

  async hear(...names: readonly string[]): Promise<void> {
    await this.order({ hear: names });
  }

  /** The nodes say of themselves that they are not ready. */
  async fail(...names: readonly string[]): Promise<void> {
    await this.order({ fail: names });
  }

  /** The probes of these pods, NAMESPACE/NAME, fail. */
  async failProbes(...pods: readonly string[]): Promise<void> {
    await this.order({ unready: pods });
  }

  /** The node says that it is at this address, its kubelet at this port. */
  async place(name: string, address: string, port: number): Promise<void> {
    await this.order({ place: [name, address, String(port)] });
  }

  private async order(order: object): Promise<void> {
    this.process.write(`${JSON.stringify(order)}\n`);
    const { value } = await this.lines.next();
    if (value !== "done") throw new Error(`hollow kubelets have ended; see ${this.process.logPath}`);
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}
