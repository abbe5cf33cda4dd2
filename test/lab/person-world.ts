/**
 * What a person finds who looks at a small cluster.
 */
import { NODE_NAME, type World } from "./world.ts";

/** Namespaces shop, data and empty; pods of a node, its Node, a Deployment. */
export async function furnish(world: World): Promise<void> {
  await world.createNamespace("shop");
  await world.createNamespace("data");
  await world.createNamespace("empty");
  const pod = (namespace: string, name: string, app: string) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace, labels: { app } },
    spec: { containers: [{ name: "app", image: "app" }], nodeName: NODE_NAME },
  });
  const template = { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "app", image: "app" }] } };
  await world.apply(
    { apiVersion: "v1", kind: "Node", metadata: { name: NODE_NAME, labels: { tier: "edge" } } },
    pod("shop", "web-0", "web"),
    pod("shop", "web-1", "web"),
    pod("data", "db-0", "db"),
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "web", namespace: "shop", labels: { app: "web" } },
      spec: { selector: { matchLabels: { app: "web" } }, template },
    },
  );
}
