/**
 * Pods for every row of what a kubelet asks: each has a reason to ask for
 * something the others do not. None of them needs a scheduler.
 *
 *   configured  ConfigMap, Secret, pull secret, a token for an audience
 *   volume      a claim, bound to a folder of the node
 *   attached    a claim whose volume a driver must attach; there is none, so it waits
 *   device      a device that nobody allocates, so it waits
 *   certified   a trust bundle and a certificate that nobody signs, so it waits
 *   lone        nothing; it is deleted
 *   once        a Job that ends at once
 */
import { readFileSync } from "node:fs";
import { container, NAMESPACE, pod, SECRET_TEXT } from "./workload.ts";
import { NODE_NAME } from "./world.ts";

const FOREVER = ["sleep", "100000000"];
const DRIVER = "disk.example.com";

/** The manifest of a static pod. */
export function staticPodNamed(name: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: NAMESPACE },
    spec: { terminationGracePeriodSeconds: 1, containers: [container(FOREVER)] },
  };
}

/**
 * Everything else.
 *
 * @param folder of the node, which exists.
 * @param certificate of a CA, for the trust bundle; undefined where kubelet knows no bundles.
 */
export function rowsWorkload(folder: string, certificate: string | undefined): object[] {
  return [
    ...configuration(),
    configured(),
    ...volume(folder),
    ...attached(),
    ...device(),
    ...(certificate === undefined ? [] : certified(readFileSync(certificate, "utf8"))),
    onNode("lone", { containers: [container(FOREVER)] }),
    once(),
    { apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: "plain" }, handler: "runc" },
  ];
}

/** A pod that names its node itself. */
function onNode(name: string, spec: object): object {
  return pod(name, { nodeName: NODE_NAME, ...spec });
}

function mounted(name: string, volumes: Readonly<Record<string, object>>, more: object = {}): object {
  const names = Object.keys(volumes);
  return onNode(name, {
    containers: [container(FOREVER, { volumeMounts: names.map((one) => ({ name: one, mountPath: `/${one}` })) })],
    volumes: names.map((one) => ({ name: one, ...volumes[one] })),
    ...more,
  });
}

function configuration(): object[] {
  const metadata = (name: string) => ({ name, namespace: NAMESPACE });
  return [
    { apiVersion: "v1", kind: "ConfigMap", metadata: metadata("settings"), data: { GREETING: "hello" } },
    { apiVersion: "v1", kind: "Secret", metadata: metadata("password"), stringData: { password: SECRET_TEXT } },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: metadata("pull"),
      type: "kubernetes.io/dockerconfigjson",
      stringData: { ".dockerconfigjson": '{"auths":{}}' },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: metadata("web"),
      spec: { selector: { app: "configured" }, ports: [{ port: 80, targetPort: 8080 }] },
    },
  ];
}

function configured(): object {
  const token = { serviceAccountToken: { path: "token", audience: "vault", expirationSeconds: 3600 } };
  return mounted(
    "configured",
    {
      secret: { secret: { secretName: "password" } },
      settings: { configMap: { name: "settings" } },
      token: { projected: { sources: [token] } },
    },
    { imagePullSecrets: [{ name: "pull" }] },
  );
}

function claim(name: string): object {
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name, namespace: NAMESPACE },
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: "1Mi" } },
      storageClassName: "",
      volumeName: name,
    },
  };
}

function volumeOf(name: string, source: object): object {
  return {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name },
    spec: { accessModes: ["ReadWriteOnce"], capacity: { storage: "1Mi" }, ...source },
  };
}

function volume(folder: string): object[] {
  return [
    volumeOf("volume", { hostPath: { path: folder, type: "Directory" } }),
    claim("volume"),
    mounted("volume", { data: { persistentVolumeClaim: { claimName: "volume" } } }),
  ];
}

function attached(): object[] {
  return [
    { apiVersion: "storage.k8s.io/v1", kind: "CSIDriver", metadata: { name: DRIVER }, spec: { attachRequired: true } },
    volumeOf("attached", { csi: { driver: DRIVER, volumeHandle: "disk-1" } }),
    claim("attached"),
    mounted("attached", { data: { persistentVolumeClaim: { claimName: "attached" } } }),
  ];
}

function device(): object[] {
  return [
    {
      apiVersion: "resource.k8s.io/v1",
      kind: "ResourceClaim",
      metadata: { name: "device", namespace: NAMESPACE },
      spec: { devices: { requests: [{ name: "gpu", exactly: { deviceClassName: "gpu.example.com" } }] } },
    },
    onNode("device", {
      containers: [container(FOREVER, { resources: { claims: [{ name: "gpu" }] } })],
      resourceClaims: [{ name: "gpu", resourceClaimName: "device" }],
    }),
  ];
}

function certified(certificate: string): object[] {
  const bundle = { clusterTrustBundle: { name: "trust", path: "ca.crt" } };
  const key = {
    podCertificate: { signerName: "example.com/nobody", keyType: "ED25519", credentialBundlePath: "bundle.pem" },
  };
  return [
    {
      apiVersion: "certificates.k8s.io/v1",
      kind: "ClusterTrustBundle",
      metadata: { name: "trust" },
      spec: { trustBundle: certificate },
    },
    mounted("certified", { bundle: { projected: { sources: [bundle] } }, key: { projected: { sources: [key] } } }),
  ];
}

function once(): object {
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: "once", namespace: NAMESPACE },
    spec: {
      template: {
        spec: { restartPolicy: "Never", nodeName: NODE_NAME, containers: [container(["sh", "-c", "exit 0"])] },
      },
    },
  };
}
