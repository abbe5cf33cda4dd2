/**
 * Kubeconfig files for the lab's clients, written as JSON, which is YAML too.
 */
import { writeFileSync } from "node:fs";

/** How a client proves who it is. */
export type LabCredential = { readonly certificate: string; readonly key: string } | { readonly token: string };

/** Where and as whom. */
export interface Connection {
  readonly server: string;
  /** File of the CA to trust. */
  readonly ca: string;
  readonly credential: LabCredential;
}

/** Writes the file and returns its path. */
export function writeKubeconfig(path: string, { server, ca, credential }: Connection): string {
  const user =
    "token" in credential
      ? { token: credential.token }
      : { "client-certificate": credential.certificate, "client-key": credential.key };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "lab", cluster: { server, "certificate-authority": ca } }],
    users: [{ name: "lab", user }],
    contexts: [{ name: "lab", context: { cluster: "lab", user: "lab" } }],
    "current-context": "lab",
  };
  writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}
