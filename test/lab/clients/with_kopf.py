# An operator: KUBECONFIG says where; started by `kopf run`.
import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    settings.posting.enabled = False


@kopf.on.event("", "v1", "pods")
def seen(event, name, labels, **_):
    print(event["type"] or "seen", name, labels.get("step", ""), flush=True)
