/**
 * A person at a cut node: what real kubectl says of what was looked at before.
 *
 * Online this person has typed three lines; then the link is cut, and they ask
 * on. Each line says what it says with the API server there (ages apart), or
 * names what it could not have and what there is instead.
 */
import { expect, test } from "bun:test";
import type { Output } from "./processes.ts";
import { programPath } from "./build.ts";
import { oldKubectl, titled, whyWithoutHoldfast, whyWithoutOldKubectl } from "./requirements.ts";
import { furnish } from "./person-world.ts";
import { startWorld } from "./world.ts";

const BEFORE = ["get pods -A", "get nodes", "get deploy -A -o yaml"];
const UNREACHED = "the API server cannot be reached";
const REFUSED = `${UNREACHED}, and nothing is queued; try again when the link is back`;

/** "same": the output that the API server gives. Else: what stands on stderr, with exit code 1. */
type Says = "same" | { readonly refused: string } | { readonly shown: RegExp };
const podsAreRows = (asked: string): Says => ({
  refused: `${asked}: ${UNREACHED}; kept for this caller are all pods as a Table`,
});
const nothingOf = (asked: string, resource: string): Says => ({
  refused: `${asked}: ${UNREACHED}; nothing of ${resource} is kept for this caller`,
});

const LINES: readonly (readonly [string, Says])[] = [
  ["get pods -A", "same"],
  ["get pods -A -o wide", "same"],
  ["get po -n shop", "same"],
  ["get pods -n shop -o wide", "same"],
  ["get pods -n shop -l app=web", "same"],
  ["get pods -n shop -l app==web,!gone", "same"],
  ["get pods -A -l app=db", "same"],
  ["get pods -n shop --show-labels", "same"],
  ["get pods -n shop -L app", "same"],
  ["get pods -n shop --no-headers", "same"],
  ["get pods -n shop --chunk-size=1", "same"],
  ["get pods -n shop --field-selector=metadata.name=web-1", "same"],
  ["get pod web-0 -n shop", "same"],
  ["get pods web-0 web-1 -n shop", "same"],
  ["get pods -n empty", "same"],
  ["get pods -n shop -l app=none", "same"],
  ["get pods -A -o name", podsAreRows("Cannot list pods")],
  ["get pods -n shop -o json", podsAreRows('Cannot list pods in namespace "shop"')],
  ["get pod web-0 -n shop -o yaml", podsAreRows('Cannot get pods "web-0" in namespace "shop"')],
  ["get pods -n shop --field-selector=spec.nodeName=edge1", podsAreRows('Cannot list pods in namespace "shop"')],
  ["get pods -n shop --sort-by=.metadata.name", podsAreRows('Cannot list pods in namespace "shop"')],
  ["get pod never -n shop", podsAreRows('Cannot get pods "never" in namespace "shop"')],
  ["get nodes", "same"],
  ["get nodes -o wide", "same"],
  ["get node edge1", "same"],
  ["get no -l tier=edge", "same"],
  ["get nodes -o json", { refused: `Cannot list nodes: ${UNREACHED}; kept for this caller are all nodes as a Table` }],
  ["get deploy -A -o yaml", "same"],
  ["get deploy -A -o json", "same"],
  ["get deploy -n shop -o json", "same"],
  ["get deploy web -n shop -o yaml", "same"],
  ["get deploy -n shop -o name", "same"],
  ["get deploy -n shop -l app=web -o name", "same"],
  ["get deploy -n shop -o jsonpath={.items[*].metadata.name}", "same"],
  ["get deploy -n shop -o custom-columns=N:.metadata.name,R:.spec.replicas", "same"],
  ["get deploy web -n shop -o go-template={{.metadata.name}}", "same"],
  // Cells are the API server's: of objects kubectl makes what it can by itself.
  ["get deploy -n shop", { shown: /^NAME +AGE\nweb +AGE\n$/ }],
  [
    "get deploy never -n shop",
    {
      refused: `Cannot get deployments.apps "never" in namespace "shop": ${UNREACHED}; kept for this caller are all deployments as JSON`,
    },
  ],
  ["rollout status deployment/web -n shop --watch=false", "same"],
  [
    "rollout history deployment/web -n shop",
    nothingOf('Cannot list replicasets.apps in namespace "shop"', "replicasets"),
  ],
  ["describe deployment web -n shop", "same"],
  ["describe pod web-0 -n shop", podsAreRows('Cannot get pods "web-0" in namespace "shop"')],
  ["get all -n shop", nothingOf('Cannot list services in namespace "shop"', "services")],
  ["get services -n shop", nothingOf('Cannot list services in namespace "shop"', "services")],
  ["get secrets -A", nothingOf("Cannot list secrets", "secrets")],
  ["get events -n shop", nothingOf('Cannot list events in namespace "shop"', "events")],
  ["logs web-0 -n shop", podsAreRows('Cannot get pods "web-0" in namespace "shop"')],
  ["exec web-0 -n shop -- true", podsAreRows('Cannot get pods "web-0" in namespace "shop"')],
  ["delete pod web-0 -n shop --wait=false", { refused: `Cannot delete pods "web-0" in namespace "shop": ${REFUSED}` }],
  [
    "scale deploy web -n shop --replicas=3",
    { refused: `Cannot patch deployments.apps/scale "web" in namespace "shop": ${REFUSED}` },
  ],
  [
    "create configmap late -n shop --from-literal=a=1",
    { refused: `Cannot create configmaps in namespace "shop": ${REFUSED}` },
  ],
  ["label pod web-0 -n shop late=yes", podsAreRows('Cannot get pods "web-0" in namespace "shop"')],
  [
    "auth can-i list pods -n shop",
    { refused: `Cannot review access: ${UNREACHED}, and no decision of it on this is remembered` },
  ],
  ["api-resources", "same"],
  ["get --raw=/api/v1/namespaces/shop/pods", podsAreRows('Cannot list pods in namespace "shop"')],
  ["get --raw=/apis/apps/v1/namespaces/shop/deployments", "same"],
  ["get --raw=/apis/apps/v1/namespaces/shop/deployments/web", "same"],
];

/** What another release says otherwise. */
const OTHERWISE: Readonly<Record<string, Readonly<Record<string, Says>>>> = {
  // It leaves out what it could not list.
  "1.20": {
    "describe deployment web -n shop": { shown: /^Name: +web\n[^]*\nSelector: +app=web\n[^]*\nEvents: +<none>\n$/ },
  },
};

for (const [release, program, why] of [
  ["1.37", programPath("kubectl"), whyWithoutHoldfast],
  ["1.20", oldKubectl, whyWithoutOldKubectl],
] as const)
  test.skipIf(why !== undefined)(titled(`what kubectl ${release} says at a cut node`, why), async () => {
    await using world = await startWorld();
    await furnish(world);
    const token = await world.tokenFor("person", ["*"]);
    const holdfast = await world.startHoldfast();
    const direct = world.kubeconfig(world.apiServerUrl, { token });
    const through = world.proxyKubeconfig(holdfast.stateDir, { token });
    const run = (line: string, kubeconfig: string) => world.kubectl(line.split(" "), { kubeconfig, program });
    const online = new Map<string, Output>();
    const lines = LINES.map(([line, says]) => [line, OTHERWISE[release]?.[line] ?? says] as const);
    for (const [line, says] of lines) if (says === "same") online.set(line, await run(line, direct));
    for (const line of BEFORE) expect((await run(line, through)).stderr).toBe("");

    world.cut();

    for (const [line, says] of lines) {
      const answer = await run(line, through);
      const isFromCopy = line !== "api-resources";
      if (says === "same") {
        expect([line, answer.exitCode, timeless(answer.stdout)]).toEqual([line, 0, timeless(online.get(line)!.stdout)]);
        if (isFromCopy) expect([line, answer.stderr]).toEqual([line, expect.stringMatching(WARNING)]);
      } else if ("shown" in says)
        expect([line, answer.exitCode, timeless(answer.stdout)]).toEqual([line, 0, expect.stringMatching(says.shown)]);
      else expect([line, answer.exitCode, answer.stderr]).toEqual([line, 1, expect.stringContaining(says.refused)]);
    }
  });

const WARNING =
  /^Warning: Holdfast: the API server does not answer; this is a copy, last heard of at 20[-0-9T:]+Z, \d+s ago\n/;

/** Without ages: they are those of now. */
function timeless(text: string): string {
  return text
    .replaceAll(/\b(\d+[smhd])+\b/g, "AGE")
    .replaceAll(/ {2,}/g, "  ")
    .replaceAll(/"resourceVersion":"\d+"\},"items"/g, "");
}
