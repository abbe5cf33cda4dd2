# The official client: a list, and a watch from it, as its examples do.
import sys
from kubernetes import client, config, watch

config.load_kube_config(sys.argv[1])
api = client.CoreV1Api()
listed = api.list_namespaced_pod("shop")
for pod in listed.items:
    print("seen", pod.metadata.name, (pod.metadata.labels or {}).get("step", ""), flush=True)
at = listed.metadata.resource_version
while True:
    for event in watch.Watch().stream(api.list_namespaced_pod, "shop", resource_version=at):
        pod = event["object"]
        at = pod.metadata.resource_version
        print(event["type"], pod.metadata.name, (pod.metadata.labels or {}).get("step", ""), flush=True)
    print("again", flush=True)
