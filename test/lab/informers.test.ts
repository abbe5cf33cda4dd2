/**
 * client-go informers, the way nearly every program on a node reads the API,
 * through a lost link, restarts on both sides and the link's return.
 *
 * Every kind of reading runs side by side in one scene, so that scopes, shared
 * watches and representations meet as they do on a node. The same bodies run
 * straight against the API server where that makes sense: it shows that the
 * test asks no more than Kubernetes gives.
 */
import { describe, expect, test } from "bun:test";
import {
  Informer,
  INFORMER_KINDS,
  type InformerKind,
  type InformerQuery,
  kindTitle,
  type StoredItem,
} from "./informer.ts";
import { until } from "./processes.ts";
import { titled, whySkipped, whyWithoutHoldfast } from "./requirements.ts";
import { type Holdfast, NODE_NAME, startWorld, type World } from "./world.ts";

const NAMESPACE = "shop";
/** Representations that the kinds ask for: JSON and protobuf, of whole objects and of their metadata. */
const REPRESENTATIONS = 4;
const LOSSES = ["cut", "drop"] as const;

describe.skipIf(whySkipped !== undefined)(titled("informers straight on the API server"), () => {
  test("every kind syncs, follows and ends with the API server's own list", async () => {
    await using scene = await Scene.start({ through: "api-server" });

    await scene.change("first");

    await scene.expectAllToFollow();
  });
});

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("informers through Holdfast", whyWithoutHoldfast), () => {
  test("every kind syncs, follows and ends with the API server's own list", async () => {
    await using scene = await Scene.start();

    await scene.change("first");

    await scene.expectAllToFollow();
  });

  test("what was read is listed once from the API server, however many informers read it", async () => {
    await using scene = await Scene.start({ kinds: [] });
    const mark = scene.world.audit.mark();

    const informers = [1, 2, 3].map(() => scene.startInformer({ mode: "typed", content: "protobuf", watchList: true }));
    for (const informer of informers) await informer.synced();

    expect(scene.world.audit.fullReadsSince(mark, "pods")).toHaveLength(1);
  });

  for (const loss of LOSSES) {
    describe(`when the link is lost (${loss})`, () => {
      test("informers notice nothing, and at the return see only what changed, with no list", async () => {
        await using scene = await Scene.start();
        const before = await scene.dumps();
        const counts = scene.informers.map((informer) => informer.lines.length);
        const mark = scene.world.audit.mark();

        scene.world[loss]();
        await scene.change("meanwhile");
        await scene.untilLossIsNoticed();

        expect(await scene.dumps()).toEqual(before);
        expect(scene.informers.flatMap((informer, i) => informer.changes(counts[i]))).toEqual([]);

        scene.world.heal();
        await scene.expectAllToFollow();
        expect(scene.world.audit.fullReadsSince(mark, "pods")).toEqual([]);
        expect(scene.informers.flatMap((informer) => informer.errors)).toEqual([]);
      });

      test("an informer started meanwhile syncs with what was known", async () => {
        await using scene = await Scene.start();
        const known = await scene.truth();
        const mark = scene.world.audit.mark();

        scene.world[loss]();
        await scene.change("meanwhile");
        await scene.restartInformers();

        for (const items of await scene.dumps()) expect(items).toEqual(known);

        scene.world.heal();
        await scene.expectAllToFollow();
        expect(scene.world.audit.fullReadsSince(mark, "pods")).toEqual([]);
      });

      for (const signal of ["SIGTERM", "SIGKILL"] as const) {
        test(`Holdfast ended by ${signal} and started again meanwhile knows what it knew`, async () => {
          await using scene = await Scene.start();
          await scene.change("first");
          await scene.expectAllToFollow();
          const known = await scene.truth();
          // Power is lost right after a change was handed down: the worst moment for what is on disk.
          await scene.change("last");
          await scene.expectAllToFollow();
          const latest = await scene.truth();
          const mark = scene.world.audit.mark();

          scene.world[loss]();
          await scene.change("meanwhile");
          await scene.restartHoldfast(signal);

          if (signal === "SIGTERM") for (const items of await scene.dumps()) expect(items).toEqual(latest);
          await scene.restartInformers();
          for (const items of await scene.dumps())
            expect(signal === "SIGTERM" ? [latest] : [known, latest]).toContainEqual([...items]);

          scene.world.heal();
          await scene.expectAllToFollow();
          expect(scene.world.audit.fullReadsSince(mark, "pods")).toEqual([]);
        });

        test(`informers that live through Holdfast's ${signal} meanwhile never see time run backwards`, async () => {
          await using scene = await Scene.start();
          const mark = scene.world.audit.mark();

          // No pause between the last event and the end: an event handed down must outlive the process.
          await scene.change("last");
          await scene.expectAllToFollow();
          scene.world[loss]();
          await scene.restartHoldfast(signal);
          await scene.change("meanwhile");
          scene.world.heal();

          await scene.expectAllToFollow();
          expect(scene.world.audit.fullReadsSince(mark, "pods")).toEqual([]);
        });
      }

      test("history lost meanwhile costs one list at most for each scope, and its differences come down as events", async () => {
        await using scene = await Scene.start();

        scene.world[loss]();
        await scene.change("meanwhile");
        const mark = await scene.loseHistory();
        scene.world.heal();

        await scene.expectAllToFollow();
        // The scene's own scopes, and those of the node's identity; none where their watches were told all the same (below).
        expect(scene.world.audit.fullReadsSince(mark, "pods").length).toBeLessThanOrEqual(REPRESENTATIONS + 1);
      });
    });
  }

  test("history lost meanwhile costs one list at most, for a single scope", async () => {
    await using scene = await Scene.start({
      kinds: [{ mode: "typed", content: "protobuf", watchList: true }],
      withNode: false,
    });

    scene.world.cut();
    await scene.change("meanwhile");
    const mark = await scene.loseHistory();
    scene.world.heal();

    await scene.expectAllToFollow();
    // Often none at all: the kernel of the API server that was killed goes on sending what it had taken, so that the
    // watch is told of all changes when the link is back, and begins anew at the last of them.
    expect(scene.world.audit.fullReadsSince(mark, "pods").length).toBeLessThanOrEqual(1);
  });

  test("a namespace that was never read while online stays unsynced, and is never taken for empty", async () => {
    await using scene = await Scene.start({ kinds: [] });
    await scene.world.createNamespace("unseen");

    scene.world.cut();
    const informer = scene.startInformer(
      { mode: "typed", content: "protobuf", watchList: true },
      { resource: "pods", namespace: "unseen" },
    );
    await until("the informer has met errors", () => informer.errors.length >= 2);

    expect(informer.lines.filter((line) => line.event === "synced")).toEqual([]);
    scene.world.heal();
    expect(await informer.synced()).toEqual([]);
  });
});

interface SceneOptions {
  readonly through?: "api-server" | "holdfast";
  readonly kinds?: readonly InformerKind[];
  /** Beside the kinds, two informers that read as kubelet does: node certificate, field selector. Default: with any kinds. */
  readonly withNode?: boolean;
}

/** A world with pods, perhaps Holdfast, and synced informers. */
class Scene implements AsyncDisposable {
  readonly informers: Informer[] = [];
  private readers: { readonly kind: InformerKind; readonly query: InformerQuery; readonly kubeconfig: string }[] = [];

  private constructor(
    readonly world: World,
    private holdfast: Holdfast | undefined,
    private readonly token: string,
  ) {}

  static async start({
    through = "holdfast",
    kinds = INFORMER_KINDS,
    withNode = kinds.length > 0,
  }: SceneOptions = {}): Promise<Scene> {
    const world = await startWorld();
    try {
      await world.createNamespace(NAMESPACE);
      await world.apply(...["web-0", "web-1", "web-2", "web-same"].map(pod));
      const token = await world.tokenFor("reader", ["get", "list", "watch"]);
      const scene = new Scene(world, through === "holdfast" ? await world.startHoldfast() : undefined, token);
      const byToken = scene.kubeconfig({ token });
      const byNode = scene.kubeconfig(world.certificateOf("node"));
      scene.readers = kinds.map((kind) => ({
        kind,
        query: { resource: "pods", namespace: NAMESPACE },
        kubeconfig: byToken,
      }));
      if (withNode) {
        const query = { resource: "pods", fieldSelector: `spec.nodeName=${NODE_NAME}` };
        for (const watchList of [true, false])
          scene.readers.push({ kind: { mode: "typed", content: "protobuf", watchList }, query, kubeconfig: byNode });
      }
      await scene.startInformers();
      return scene;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What the API server would say, asked in the cloud. */
  async truth(): Promise<StoredItem[]> {
    const list = JSON.parse(await this.world.inCloud(["get", "pods", "-n", NAMESPACE, "-o", "json"])) as {
      items: { metadata: { name: string; uid: string; resourceVersion: string } }[];
    };
    return list.items
      .map(({ metadata: m }) => ({ key: `${NAMESPACE}/${m.name}`, uid: m.uid, rv: m.resourceVersion }))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  async dumps(): Promise<(readonly StoredItem[])[]> {
    return await Promise.all(this.informers.map((informer) => informer.dump()));
  }

  /** Everything that can happen to a pod: made, changed, deleted, and replaced under the same name. */
  async change(word: string): Promise<void> {
    await this.world.apply(pod(`new-${word}`));
    await this.world.inCloud(["label", "pod", "web-0", "-n", NAMESPACE, `word=${word}`, "--overwrite"]);
    await this.world.inCloud(["label", "pod", "web-2", "-n", NAMESPACE, `word=${word}`, "--overwrite"]);
    await this.world.inCloud([
      "delete",
      "pod",
      "web-1",
      "web-same",
      "-n",
      NAMESPACE,
      "--grace-period=0",
      "--force",
      "--ignore-not-found",
    ]);
    await this.world.apply(pod("web-same"));
  }

  /** Waits until every informer holds what the API server holds, and has seen nothing impossible on the way. */
  async expectAllToFollow(): Promise<void> {
    const truth = await this.truth();
    for (const informer of this.informers) {
      let held: readonly StoredItem[] = [];
      await until(
        `an informer (${kindTitle(informer.kind)}) holds what the API server holds`,
        async () => Bun.deepEquals((held = await informer.dump()), truth),
        60_000,
      ).catch((error: Error) => {
        throw new Error(
          `${error.message}: it holds ${JSON.stringify(held)} instead of ${JSON.stringify(truth)}; its errors: ${informer.errors.slice(-3).join("; ")}`,
        );
      });
      expect(informer.offences()).toEqual([]);
    }
  }

  /** A request that must reach the API server shows that it cannot be reached, and that Holdfast knows. */
  async untilLossIsNoticed(): Promise<void> {
    const kubeconfig = this.kubeconfig({ token: this.token });
    await until(
      "a request that was never made before is refused",
      async () => (await this.world.kubectl(["get", "--raw=/api/v1/namespaces/never"], { kubeconfig })).exitCode !== 0,
    );
  }

  /** Compacts etcd and empties the watch cache: what happened so far can only be listed. */
  async loseHistory(): Promise<number> {
    await this.world.compact();
    await this.world.restartApiServer();
    return this.world.audit.mark();
  }

  startInformer(kind: InformerKind, query: InformerQuery = { resource: "pods", namespace: NAMESPACE }): Informer {
    return Informer.start(this.world, this.kubeconfig({ token: this.token }), kind, query);
  }

  async restartInformers(): Promise<void> {
    for (const informer of this.informers.splice(0)) await informer.stop();
    await this.startInformers();
  }

  async restartHoldfast(signal: NodeJS.Signals): Promise<void> {
    if (this.holdfast === undefined) throw new TypeError("A scene on the API server has no Holdfast");
    await this.holdfast.stop(signal);
    this.holdfast = await this.world.startHoldfast({ stateDir: this.holdfast.stateDir });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
  }

  private async startInformers(): Promise<void> {
    this.informers.push(
      ...this.readers.map(({ kind, query, kubeconfig }) => Informer.start(this.world, kubeconfig, kind, query)),
    );
    for (const informer of this.informers) await informer.synced();
  }

  private kubeconfig(credential: Parameters<World["proxyKubeconfig"]>[1]): string {
    if (this.holdfast === undefined) return this.world.kubeconfig(this.world.apiServerUrl, credential);
    return this.world.proxyKubeconfig(this.holdfast.stateDir, credential);
  }
}

function pod(name: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: NAMESPACE },
    spec: { nodeName: NODE_NAME, containers: [{ name: "app", image: "app" }] },
  };
}
