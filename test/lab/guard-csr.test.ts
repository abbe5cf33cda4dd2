/**
 * Certificate requests on a real control plane whose own approver is off: the
 * guard approves what is fit, the real signer signs it, the rest waits for a person.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { dns, ip, mintRequest, nodeSubject } from "../certificates/requests.ts";
import { GuardWorld } from "./guard-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";

const CLIENT = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING = "kubernetes.io/kubelet-serving";

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("certificate requests", whyWithoutHoldfast), () => {
  let guarded: GuardWorld;
  beforeAll(async () => {
    guarded = await GuardWorld.start({
      manifests: ["--approve-csrs"],
      world: { controllerManagerArguments: ["--controllers=*,-certificatesigningrequest-approving-controller"] },
    });
    await guarded.hollow.add(["gw-1"]);
    await guarded.hollow.place("gw-1", "192.168.7.7", 10_250);
    await guarded.startGuards(2, ["--approve-csrs"]);
    // As kubeadm does for nodes: they may ask; nobody but the guard approves here.
    await guarded.world.inCloud([
      "create",
      "clusterrolebinding",
      "lab-nodes",
      "--clusterrole=system:node-bootstrapper",
      "--group=system:nodes",
    ]);
    // Whoever lets machines join by tokens gives their group this right; a binding for kubelets is there from the start.
    await guarded.world.inCloud([
      "create",
      "clusterrolebinding",
      "lab-bootstrap",
      "--clusterrole=system:node-bootstrapper",
      "--group=system:bootstrappers",
    ]);
    await until("the node has its address", async () =>
      (await guarded.world.inCloud(["get", "node", "gw-1", "-o", "jsonpath={.status.addresses[*].address}"])).includes(
        "192.168.7.7",
      ),
    );
  }, 240_000);
  afterAll(async () => await guarded?.[Symbol.asyncDispose]());

  interface Asked {
    readonly pem: string;
    readonly signerName?: string;
    readonly usages?: readonly string[];
    readonly user?: string;
    readonly groups?: readonly string[];
  }

  async function ask(name: string, asked: Asked): Promise<void> {
    const { pem, signerName = CLIENT, usages = ["digital signature", "client auth"] } = asked;
    const { user = "system:node:gw-1", groups = ["system:nodes"] } = asked;
    const { status, body } = await guarded.world.requestInCloud({
      method: "POST",
      path: "/apis/certificates.k8s.io/v1/certificatesigningrequests",
      contentType: "application/json",
      body: {
        apiVersion: "certificates.k8s.io/v1",
        kind: "CertificateSigningRequest",
        metadata: { name },
        spec: { request: btoa(pem), signerName, usages },
      },
      user,
      groups: [...groups, "system:authenticated"],
    });
    expect({ name, status, body: status === 201 ? "" : body }).toEqual({ name, status: 201, body: "" });
  }

  async function issued(name: string): Promise<X509Certificate> {
    const pem = await until(
      `${name} is signed`,
      async () => {
        const text = await guarded.world.inCloud(["get", "csr", name, "-o", "jsonpath={.status.certificate}"]);
        return text === "" ? undefined : atob(text);
      },
      30_000,
    );
    return new X509Certificate(pem);
  }

  test("a node's new identity and its serving certificate are approved and signed", async () => {
    await ask("renewal", { pem: mintRequest({ subject: nodeSubject("gw-1") }) });
    await ask("serving", {
      pem: mintRequest({ subject: nodeSubject("gw-1"), names: [ip(192, 168, 7, 7), dns("gw-1")] }),
      signerName: SERVING,
      usages: ["digital signature", "server auth"],
    });
    expect((await issued("renewal")).subject).toContain("CN=system:node:gw-1");
    expect((await issued("serving")).subjectAltName).toContain("192.168.7.7");
  }, 60_000);

  test("a machine joins with a token that is bound to its name", async () => {
    await ask("joining", {
      pem: mintRequest({ subject: nodeSubject("gw-2") }),
      user: "system:bootstrap:abcdef",
      groups: ["system:bootstrappers", "system:bootstrappers:holdfast:gw-2"],
    });
    expect((await issued("joining")).subject).toContain("CN=system:node:gw-2");
  }, 60_000);

  test("hostile ones are left, and say why", async () => {
    const bootstrap = {
      user: "system:bootstrap:abcdef",
      groups: ["system:bootstrappers", "system:bootstrappers:holdfast:gw-2"],
    };
    await ask("again", { pem: mintRequest({ subject: nodeSubject("gw-1") }) });
    await ask("other-node", { pem: mintRequest({ subject: nodeSubject("gw-3") }), ...bootstrap });
    // A yardstick that comes last: when it is signed, the others have been judged.
    await ask("zz-last", {
      pem: mintRequest({ subject: nodeSubject("gw-5") }),
      user: "system:bootstrap:abcdef",
      groups: ["system:bootstrappers", "system:bootstrappers:holdfast:gw-5"],
    });
    await issued("zz-last");
    for (const name of ["again", "other-node"]) {
      const { status } = JSON.parse(await guarded.world.inCloud(["get", "csr", name, "-o", "json"]));
      expect({ name, status }).toEqual({ name, status: {} });
    }
    await until("it says why", async () =>
      (await guarded.eventReasons("CertificateSigningRequest", "other-node")).includes("HoldfastLeftPending"),
    );
  }, 60_000);
});
