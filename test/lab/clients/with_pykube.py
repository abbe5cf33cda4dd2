import sys
import pykube

api = pykube.HTTPClient(pykube.KubeConfig.from_file(sys.argv[1]))
pods = pykube.Pod.objects(api).filter(namespace="shop")
for pod in pods:
    print("seen", pod.name, pod.labels.get("step", ""), flush=True)
while True:
    for event in pods.watch():
        print(event.type, event.object.name, event.object.labels.get("step", ""), flush=True)
    print("again", flush=True)
