import sys
from lightkube import Client, KubeConfig
from lightkube.resources.core_v1 import Pod

client = Client(config=KubeConfig.from_file(sys.argv[1]), namespace="shop")
for pod in client.list(Pod):
    print("seen", pod.metadata.name, (pod.metadata.labels or {}).get("step", ""), flush=True)
for event, pod in client.watch(Pod):
    print(event, pod.metadata.name, (pod.metadata.labels or {}).get("step", ""), flush=True)
