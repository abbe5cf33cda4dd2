/**
 * A cluster's certificates, minted by openssl.
 *
 * openssl and not Holdfast's own certificate code: the lab judges the product,
 * so what it stands on must not share the product's mistakes.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Leaf {
  readonly name: string;
  /** As openssl reads it: /O=group/CN=name. */
  readonly subject: string;
  readonly usage: "clientAuth" | "serverAuth";
  readonly alternativeNames?: readonly string[];
}

/** The folder of one cluster's keys, with the paths inside. */
export class Pki {
  constructor(readonly directory: string) {}

  get ca(): string {
    return join(this.directory, "ca.crt");
  }

  certificate(name: string): string {
    return join(this.directory, `${name}.crt`);
  }

  key(name: string): string {
    return join(this.directory, `${name}.key`);
  }

  /** Mints one more serving certificate. @param addresses that it names. @returns where it lies. */
  serving(name: string, addresses: readonly string[]): { readonly certificate: string; readonly key: string } {
    const alternativeNames = addresses.map((address) => `IP:${address}`);
    mintLeaf(this, { name, subject: `/CN=${name}`, usage: "serverAuth", alternativeNames });
    return { certificate: this.certificate(name), key: this.key(name) };
  }
}

/**
 * Mints the CA, the servers' and the clients' certificates and the service-account keys.
 *
 * @param addresses of the cloud and of the edge, which their serving certificates name.
 * @param names of the node there, and of that at the edge.
 */
export function mintPki(
  directory: string,
  addresses: { readonly cloud: string; readonly edge: string },
  names: { readonly cloud: string; readonly edge: string },
): Pki {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const pki = new Pki(directory);
  mintKey(pki.key("ca"));
  const caExtensions = [
    "-addext",
    "keyUsage=critical,keyCertSign,cRLSign",
    "-addext",
    "basicConstraints=critical,CA:TRUE",
  ];
  openssl([
    "req",
    "-x509",
    "-new",
    "-key",
    pki.key("ca"),
    "-subj",
    "/CN=kubernetes-ca",
    "-days",
    "3650",
    "-out",
    pki.ca,
    ...caExtensions,
  ]);
  const nodes = [
    { prefix: "node", name: names.edge, address: addresses.edge },
    { prefix: "cloud-node", name: names.cloud, address: addresses.cloud },
  ].flatMap(({ prefix, name, address }): Leaf[] => {
    const subject = `/O=system:nodes/CN=system:node:${name}`;
    const alternativeNames = [`DNS:${name}`, "IP:127.0.0.1", `IP:${address}`];
    return [
      { name: prefix, subject, usage: "clientAuth" },
      { name: `${prefix}-serving`, subject, usage: "serverAuth", alternativeNames },
    ];
  });
  const leaves: readonly Leaf[] = [
    {
      name: "apiserver",
      subject: "/CN=kube-apiserver",
      usage: "serverAuth",
      alternativeNames: [
        "DNS:kubernetes",
        "DNS:kubernetes.default.svc",
        "DNS:localhost",
        "IP:127.0.0.1",
        "IP:10.96.0.1",
        `IP:${addresses.cloud}`,
      ],
    },
    { name: "apiserver-kubelet", subject: "/O=system:masters/CN=kube-apiserver-kubelet-client", usage: "clientAuth" },
    { name: "front-proxy-client", subject: "/CN=front-proxy-client", usage: "clientAuth" },
    { name: "admin", subject: "/O=system:masters/CN=admin", usage: "clientAuth" },
    { name: "controller-manager", subject: "/CN=system:kube-controller-manager", usage: "clientAuth" },
    { name: "scheduler", subject: "/CN=system:kube-scheduler", usage: "clientAuth" },
    ...nodes,
  ];
  for (const leaf of leaves) mintLeaf(pki, leaf);
  mintKey(pki.key("service-account"));
  openssl(["ec", "-in", pki.key("service-account"), "-pubout", "-out", join(directory, "service-account.pub")]);
  return pki;
}

function mintLeaf(pki: Pki, { name, subject, usage, alternativeNames }: Leaf): void {
  const [request, extensions] = [join(pki.directory, `${name}.csr`), join(pki.directory, `${name}.ext`)];
  const lines = ["keyUsage=critical,digitalSignature", `extendedKeyUsage=${usage}`];
  if (alternativeNames !== undefined) lines.push(`subjectAltName=${alternativeNames.join(",")}`);
  writeFileSync(extensions, `${lines.join("\n")}\n`);
  mintKey(pki.key(name));
  openssl(["req", "-new", "-key", pki.key(name), "-subj", subject, "-out", request]);
  const signer = ["-CA", pki.ca, "-CAkey", pki.key("ca"), "-CAcreateserial"];
  openssl([
    "x509",
    "-req",
    "-in",
    request,
    ...signer,
    "-days",
    "365",
    "-extfile",
    extensions,
    "-out",
    pki.certificate(name),
  ]);
}

function mintKey(path: string): void {
  openssl(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path]);
}

function openssl(args: readonly string[]): void {
  const done = Bun.spawnSync(["openssl", ...args], { stdout: "ignore", stderr: "pipe" });
  if (!done.success) throw new Error(`Cannot mint a certificate, openssl ${args[0]}: ${done.stderr.toString().trim()}`);
}
