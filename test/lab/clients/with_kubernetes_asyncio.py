import asyncio
import sys
from kubernetes_asyncio import client, config, watch


async def main():
    await config.load_kube_config(sys.argv[1])
    async with client.ApiClient() as api_client:
        api = client.CoreV1Api(api_client)
        listed = await api.list_namespaced_pod("shop")
        for pod in listed.items:
            print("seen", pod.metadata.name, (pod.metadata.labels or {}).get("step", ""), flush=True)
        at = listed.metadata.resource_version
        while True:
            async with watch.Watch().stream(api.list_namespaced_pod, "shop", resource_version=at) as stream:
                async for event in stream:
                    pod = event["object"]
                    at = pod.metadata.resource_version
                    print(event["type"], pod.metadata.name, (pod.metadata.labels or {}).get("step", ""), flush=True)
            print("again", flush=True)


asyncio.run(main())
