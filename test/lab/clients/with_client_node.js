// @kubernetes/client-node under Node: its informer, begun again a second after an error, as its example does.
const k8s = require("@kubernetes/client-node");

const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const api = config.makeApiClient(k8s.CoreV1Api);
const informer = k8s.makeInformer(config, "/api/v1/namespaces/shop/pods", () =>
  api.listNamespacedPod({ namespace: "shop" }),
);
for (const verb of ["add", "update", "delete"])
  informer.on(verb, ({ metadata }) => console.log(verb, metadata.name, metadata.labels?.step ?? ""));
informer.on("error", (error) => {
  console.log("again", error.message);
  setTimeout(() => informer.start(), 1_000);
});
informer.start();
