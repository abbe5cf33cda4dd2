/**
 * kubectl through Holdfast: what a person at the node sees and does.
 *
 * Each command runs with an empty cache folder, so discovery and OpenAPI are
 * asked for anew each time and must be answered too, online and offline.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import { type Output, until } from "./processes.ts";
import { titled, whySkipped, whyWithoutHoldfast } from "./requirements.ts";
import { type Holdfast, NODE_NAME, startWorld, type World } from "./world.ts";

const NAMESPACE = "shop";
/** How long a refusal may take: discovery from the copy, and one look at the link. */
const AT_ONCE_MS = 8_000;

/** Reads whose answer is compared: direct and through Holdfast, online and offline. */
const READS: readonly string[] = [
  "get pods -n shop",
  "get pods -n shop -o wide",
  "get pods -n shop -o json",
  "get pods -n shop -o yaml",
  "get pods -n shop -o name",
  "get pods -n shop -l app=web -o json",
  "get pods -n shop --field-selector=metadata.name=web-1 -o json",
  "get pods -n shop --chunk-size=2 -o name",
  "get pods -A",
  "get pod web-0 -n shop -o json",
  "get pods -n shop --watch-only=false --show-labels",
  "get deployments,services,configmaps,secrets -n shop -o json",
  "get all -n shop",
  "get events -n shop",
  "get nodes -o wide",
  "get widgets -n shop",
  "get widget round -n shop -o yaml",
  "describe pod web-0 -n shop",
  "describe deployment web -n shop",
  "describe node edge1",
  "describe widget round -n shop",
  "api-resources",
  "api-versions",
  "explain pods.spec.containers",
  "explain widgets.spec",
  "get --raw=/api/v1/namespaces/shop/configmaps",
  "get --raw=/version",
];

/** Writes, each a line of kubectl, with what the cloud says afterwards. */
const WRITES: readonly {
  readonly title: string;
  readonly args: string;
  readonly input?: object;
  readonly proof: string;
  readonly expected: string;
}[] = [
  {
    title: "create",
    args: "create configmap made -n shop --from-literal=a=1",
    proof: "get configmap made -n shop -o jsonpath={.data.a}",
    expected: "1",
  },
  {
    title: "apply",
    args: "apply -f -",
    input: configMap("applied", { a: "1" }),
    proof: "get configmap applied -n shop -o jsonpath={.data.a}",
    expected: "1",
  },
  {
    title: "apply again",
    args: "apply -f -",
    input: configMap("applied", { a: "2" }),
    proof: "get configmap applied -n shop -o jsonpath={.data.a}",
    expected: "2",
  },
  {
    title: "apply --server-side",
    args: "apply --server-side -f -",
    input: configMap("server-side", { a: "1" }),
    proof: "get configmap server-side -n shop -o jsonpath={.data.a}",
    expected: "1",
  },
  {
    title: "patch",
    args: `patch configmap applied -n shop --type=merge -p {"data":{"a":"3"}}`,
    proof: "get configmap applied -n shop -o jsonpath={.data.a}",
    expected: "3",
  },
  {
    title: "edit",
    args: "edit configmap applied -n shop",
    proof: "get configmap applied -n shop -o jsonpath={.data.a}",
    expected: "edited",
  },
  {
    title: "label",
    args: "label pod web-0 -n shop tier=front",
    proof: "get pod web-0 -n shop -o jsonpath={.metadata.labels.tier}",
    expected: "front",
  },
  {
    title: "annotate",
    args: "annotate pod web-0 -n shop note=here",
    proof: "get pod web-0 -n shop -o jsonpath={.metadata.annotations.note}",
    expected: "here",
  },
  {
    title: "scale",
    args: "scale deployment web -n shop --replicas=3",
    proof: "get deployment web -n shop -o jsonpath={.spec.replicas}",
    expected: "3",
  },
  {
    title: "delete",
    args: "delete configmap made -n shop",
    proof: "get configmap made -n shop --ignore-not-found",
    expected: "",
  },
];

describe.skipIf(whySkipped !== undefined)(titled("kubectl straight on the API server"), () => {
  test("the commands of this file work", async () => {
    await using desk = await Desk.start({ through: "api-server" });

    for (const [command, answer] of Object.entries(await desk.readAll()))
      expect([command, answer.exitCode]).toEqual([command, 0]);
    await desk.expectWritesToWork();
    await desk.expectDiffAndWaitToWork();
    await desk.expectWatchToFollow();
  });
});

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("kubectl through Holdfast", whyWithoutHoldfast), () => {
  test("reads give what the API server gives", async () => {
    await using desk = await Desk.start();

    const direct = await desk.readAll(desk.world.adminKubeconfig);

    expect(timeless(await desk.readAll())).toEqual(timeless(direct));
  });

  test("writes arrive", async () => {
    await using desk = await Desk.start();

    await desk.expectWritesToWork();
    await desk.expectDiffAndWaitToWork();
  });

  test("a watch follows", async () => {
    await using desk = await Desk.start();

    await desk.expectWatchToFollow();
  });

  for (const loss of ["cut", "drop"] as const) {
    describe(`when the link is lost (${loss})`, () => {
      test("reads give what they gave, also after Holdfast was restarted and killed", async () => {
        await using desk = await Desk.start();
        const before = timeless(await desk.readAll());

        desk.world[loss]();

        expect(timeless(await desk.readAll())).toEqual(before);
        for (const signal of ["SIGTERM", "SIGKILL"] as const) {
          await desk.restartHoldfast(signal);
          expect(timeless(await desk.readAll())).toEqual(before);
        }
      });

      test("what was never seen is unavailable, not missing and not empty", async () => {
        await using desk = await Desk.start();
        await desk.readAll();

        desk.world[loss]();

        for (const command of [
          "get pod never -n shop -o json",
          "get secrets -n never",
          "get ingresses -n shop",
          "describe configmap never -n shop",
          "get --raw=/api/v1/namespaces/shop/pods/never",
        ]) {
          const answer = await desk.run(command);
          expect([command, answer.exitCode]).toEqual([command, 1]);
          expect(answer.stderr).toContain("ServiceUnavailable");
          expect(answer.stderr + answer.stdout).not.toMatch(/NotFound|No resources found/);
        }
      });

      test("writes are refused at once, and nothing of them arrives later", async () => {
        await using desk = await Desk.start();
        await desk.readAll();
        await desk.expectWritesToWork();
        const before = await desk.world.inCloud(["get", "configmaps,pods,deployments", "-n", NAMESPACE, "-o", "json"]);

        desk.world[loss]();
        await until(
          "the loss is noticed",
          async () => (await desk.run("get --raw=/api/v1/namespaces/shop/pods/never")).exitCode !== 0,
        );

        for (const args of [
          "create configmap late -n shop --from-literal=a=1",
          "label pod web-1 -n shop late=yes",
          "delete pod web-1 -n shop --wait=false",
          `patch configmap applied -n shop --type=merge -p {"data":{"a":"late"}}`,
        ]) {
          const answer = await desk.run(args);
          expect([args, answer.exitCode]).toEqual([args, 1]);
          expect(answer.stderr).toMatch(
            /ServiceUnavailable|unable to handle the request|cannot be reached|currently unable/i,
          );
          expect(answer.tookMs).toBeLessThan(AT_ONCE_MS);
        }
        desk.world.heal();
        await until(
          "the link is back",
          async () => (await desk.run("label pod web-2 -n shop back=yes --overwrite")).exitCode === 0,
        );
        await desk.world.inCloud(["label", "pod", "web-2", "-n", NAMESPACE, "back-"]);
        expect(
          withoutVersions(
            await desk.world.inCloud(["get", "configmaps,pods,deployments", "-n", NAMESPACE, "-o", "json"]),
          ),
        ).toEqual(withoutVersions(before));
      });

      test("get -w stays open, says nothing meanwhile, and then only what changed, with no list", async () => {
        await using desk = await Desk.start();
        const watch = await desk.watchPods();
        const count = watch.lines.length;
        const mark = desk.world.audit.mark();

        desk.world[loss]();
        await desk.world.inCloud(["label", "pod", "web-1", "-n", NAMESPACE, "changed=yes"]);
        await desk.world.inCloud(["delete", "pod", "web-2", "-n", NAMESPACE, "--grace-period=0", "--force"]);
        await until(
          "the loss is noticed",
          async () => (await desk.run("get --raw=/api/v1/namespaces/shop/pods/never")).exitCode !== 0,
        );
        expect(watch.lines.slice(count)).toEqual([]);

        desk.world.heal();
        await until(
          "the watch shows the deletion",
          () => watch.lines.some((line) => line.startsWith("DELETED")),
          60_000,
        );
        expect(watch.lines.slice(count).filter((line) => line.includes("web-0"))).toEqual([]);
        expect(watch.lines.slice(count).filter((line) => line.includes("web-1"))).toHaveLength(1);
        expect(watch.isOpen()).toBe(true);
        expect(desk.world.audit.fullReadsSince(mark, "pods")).toEqual([]);
      });
    });
  }
});

/** A world with something to look at, and a person with a token. */
class Desk implements AsyncDisposable {
  private constructor(
    readonly world: World,
    private holdfast: Holdfast | undefined,
    private readonly kubeconfig: string,
  ) {}

  static async start({ through = "holdfast" }: { readonly through?: "api-server" | "holdfast" } = {}): Promise<Desk> {
    const world = await startWorld();
    try {
      await furnish(world);
      const token = await world.tokenFor("person", ["*"]);
      if (through === "api-server") return new Desk(world, undefined, world.kubeconfig(world.apiServerUrl, { token }));
      const holdfast = await world.startHoldfast();
      return new Desk(world, holdfast, world.proxyKubeconfig(holdfast.stateDir, { token }));
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** One line of kubectl; words are split at blanks. */
  async run(command: string, input?: object, kubeconfig = this.kubeconfig): Promise<Output> {
    return await this.world.kubectl(command.split(" "), {
      kubeconfig,
      ...(input === undefined ? {} : { input: JSON.stringify(input) }),
    });
  }

  async readAll(kubeconfig = this.kubeconfig): Promise<Record<string, Output>> {
    const answers: Record<string, Output> = {};
    for (const command of READS) answers[command] = await this.run(command, undefined, kubeconfig);
    return answers;
  }

  async expectWritesToWork(): Promise<void> {
    for (const { title, args, input, proof, expected } of WRITES) {
      const answer = await this.run(args, input);
      expect([title, answer.exitCode, answer.stderr]).toEqual([title, 0, ""]);
      expect([title, await this.world.inCloud(proof.split(" "))]).toEqual([title, expected]);
    }
  }

  async expectDiffAndWaitToWork(): Promise<void> {
    const diff = await this.run("diff -f -", configMap("applied", { a: "different" }));
    // kubectl diff: 1 says that there is a difference, above that it failed.
    expect([diff.exitCode, diff.stderr]).toEqual([1, ""]);
    expect(diff.stdout).toContain("+  a: different");
    const [waited] = await Promise.all([
      this.run("wait pod/web-0 -n shop --for=jsonpath={.metadata.labels.ready}=yes --timeout=30s"),
      Bun.sleep(1000).then(() => this.world.inCloud(["label", "pod", "web-0", "-n", NAMESPACE, "ready=yes"])),
    ]);
    expect([waited.exitCode, waited.stdout.trim()]).toEqual([0, "pod/web-0 condition met"]);
  }

  async expectWatchToFollow(): Promise<void> {
    const watch = await this.watchPods();
    await this.world.inCloud(["label", "pod", "web-1", "-n", NAMESPACE, "changed=yes"]);
    await this.world.inCloud(["delete", "pod", "web-2", "-n", NAMESPACE, "--grace-period=0", "--force"]);
    await until("the watch shows the change", () => watch.lines.some((line) => /^MODIFIED +web-1/.test(line)));
    await until("the watch shows the deletion", () => watch.lines.some((line) => /^DELETED +web-2/.test(line)));
  }

  /** Starts `get pods -w` and gathers its lines; begins after the three pods were shown. */
  async watchPods(): Promise<{ readonly lines: string[]; isOpen(): boolean }> {
    const started = this.world.startKubectl("get pods -n shop -w --output-watch-events".split(" "), this.kubeconfig);
    const lines: string[] = [];
    void (async () => {
      let rest = "";
      const decoder = new TextDecoder();
      for await (const chunk of started.stdout) {
        const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = parts.pop() ?? "";
        lines.push(...parts);
      }
    })();
    await until("the watch shows the pods", () => lines.filter((line) => line.startsWith("ADDED")).length === 3);
    return { lines, isOpen: () => started.isRunning };
  }

  async restartHoldfast(signal: NodeJS.Signals): Promise<void> {
    if (this.holdfast === undefined) throw new TypeError("A desk on the API server has no Holdfast");
    await this.holdfast.stop(signal);
    this.holdfast = await this.world.startHoldfast({ stateDir: this.holdfast.stateDir });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
  }
}

async function furnish(world: World): Promise<void> {
  await world.createNamespace(NAMESPACE);
  await world.apply(widgetDefinition());
  const template = { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "app", image: "app" }] } };
  await world.apply(
    ...["web-0", "web-1", "web-2"].map((name) => ({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: NAMESPACE, labels: { app: "web" } },
      spec: template.spec,
    })),
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "web", namespace: NAMESPACE },
      spec: { selector: { matchLabels: { app: "web" } }, template },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "web", namespace: NAMESPACE },
      spec: { selector: { app: "web" }, ports: [{ port: 80 }] },
    },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "web", namespace: NAMESPACE },
      stringData: { password: "secret" },
    },
    { apiVersion: "v1", kind: "Node", metadata: { name: NODE_NAME } },
    {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name: NODE_NAME, namespace: "kube-node-lease" },
      spec: { holderIdentity: NODE_NAME },
    },
    configMap("web", { greeting: "hello" }),
  );
  await world.inCloud(["wait", "--for=condition=Established", "crd/widgets.lab.holdfast.dev", "--timeout=30s"]);
  await until("the API server serves the custom resource", async () => {
    await world.apply({
      apiVersion: "lab.holdfast.dev/v1",
      kind: "Widget",
      metadata: { name: "round", namespace: NAMESPACE },
      spec: { size: 3 },
    });
    // Its OpenAPI is published a moment later than the resource itself.
    return (await world.inCloud(["explain", "widgets.spec"])).includes("size");
  });
  writeFileSync(join(world.directory, "edit.sh"), `#!/bin/sh\nsed -i 's/^  a: .*/  a: edited/' "$1"\n`, {
    mode: 0o755,
  });
}

function widgetDefinition(): object {
  const schema = {
    type: "object",
    properties: { spec: { type: "object", properties: { size: { type: "integer" } } } },
  };
  const columns = [{ name: "Size", type: "integer", jsonPath: ".spec.size" }];
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: "widgets.lab.holdfast.dev" },
    spec: {
      group: "lab.holdfast.dev",
      names: { plural: "widgets", singular: "widget", kind: "Widget" },
      scope: "Namespaced",
      versions: [
        {
          name: "v1",
          served: true,
          storage: true,
          schema: { openAPIV3Schema: schema },
          additionalPrinterColumns: columns,
        },
      ],
    },
  };
}

function configMap(name: string, data: Record<string, string>): object {
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace: NAMESPACE }, data };
}

/**
 * Answers without what a copy says of its age, without what the clock, and other lists of the same objects, put into
 * them, and without a node's lease: a heartbeat is not kept, an old one would lie.
 */
function timeless(answers: Record<string, Output>): Record<string, object> {
  const plain = (text: string) =>
    text
      .replaceAll(/^Warning: Holdfast: .*\n/gm, "")
      .replace(/^Lease:[^]*?(?=^Addresses:)/m, "")
      .replaceAll(/\b(\d+[smhd])+\b|<invalid>/g, "AGE")
      .replaceAll(/ {2,}/g, "  ")
      .replaceAll(/"resourceVersion":"\d+"\},"items"/g, `"resourceVersion":"N"},"items"`);
  return Object.fromEntries(
    Object.entries(answers).map(([command, { exitCode, stdout, stderr }]) => [
      command,
      { exitCode, stdout: plain(stdout), stderr: plain(stderr) },
    ]),
  );
}

function withoutVersions(json: string): unknown {
  return JSON.parse(json, (key, value: unknown) =>
    key === "resourceVersion" || key === "managedFields" ? undefined : value,
  );
}
