/**
 * A pod whose log says something new twice a second.
 */
import { IMAGE } from "./node-image.ts";
import { until } from "./processes.ts";
import { NODE_NAME, type World } from "./world.ts";

/** Starts the pod `talker` on the node, with the node's network, and waits until it runs. It says "line 0", "line 1". */
export async function startTalker(world: World, namespace: string): Promise<void> {
  const command = ["sh", "-c", 'i=0; while true; do echo "line $i"; i=$((i+1)); sleep 0.5; done'];
  await world.apply({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "talker", namespace },
    spec: {
      nodeName: NODE_NAME,
      hostNetwork: true,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      tolerations: [{ operator: "Exists" }],
      containers: [{ name: "app", image: IMAGE, imagePullPolicy: "Never", command }],
    },
  });
  await until(
    "the pod runs",
    async () =>
      (await world.inCloud(["get", "pod", "talker", "-n", namespace, "-o", "jsonpath={.status.phase}"])) === "Running",
    90_000,
  );
}
