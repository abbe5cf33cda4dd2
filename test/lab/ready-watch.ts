/**
 * How long each pod was not Ready in the cloud's eyes: while it is so, Services
 * elsewhere send it no traffic.
 */
import { NAMESPACE } from "./workload.ts";
import type { World } from "./world.ts";

const LINE = 'jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}';

export class ReadyWatch implements AsyncDisposable {
  private readonly unreadySinceMs = new Map<string, number>();
  private readonly longestMs = new Map<string, number>();

  private constructor(private readonly stopWatching: () => Promise<void>) {}

  /** Watches the workload's pods from within the cloud, whatever the link does. */
  static start(world: World): ReadyWatch {
    const kubectl = world.startKubectlInCloud(["get", "pods", "-n", NAMESPACE, "-w", "-o", LINE]);
    const watch = new ReadyWatch(async () => await kubectl.stop());
    void watch.read(kubectl.stdout);
    return watch;
  }

  /** The longest time that each of these pods was not Ready, where it was not at all; in milliseconds. */
  unreadyMs(pods: readonly string[]): Record<string, number> {
    for (const pod of this.unreadySinceMs.keys()) this.add(pod);
    return Object.fromEntries([...this.longestMs].filter(([pod]) => pods.includes(pod)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopWatching();
  }

  private async read(lines: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of lines) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const [pod = "", status] = part.split(" ");
        if (status === "True") this.add(pod);
        else if (!this.unreadySinceMs.has(pod)) this.unreadySinceMs.set(pod, performance.now());
        if (status === "True") this.unreadySinceMs.delete(pod);
      }
    }
  }

  private add(pod: string): void {
    const since = this.unreadySinceMs.get(pod);
    if (since === undefined) return;
    this.longestMs.set(pod, Math.max(this.longestMs.get(pod) ?? 0, performance.now() - since));
  }
}
