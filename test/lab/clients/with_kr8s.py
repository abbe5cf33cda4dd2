import sys
import kr8s

api = kr8s.api(kubeconfig=sys.argv[1])
for event, pod in api.watch("pods", namespace="shop"):
    print(event, pod.name, pod.labels.get("step", ""), flush=True)
