/**
 * When a failure to reach a server is a matter of trust, in words.
 */

import type { Finding } from "../base/conditions.ts";

/** OpenSSL's words, and the runtime's, for a server that the configured CA does not vouch for. */
const UNTRUSTED: Readonly<Record<string, string>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "is signed by another CA",
  UNABLE_TO_GET_ISSUER_CERT: "is signed by another CA",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "is signed by another CA",
  SELF_SIGNED_CERT_IN_CHAIN: "is signed by another CA",
  DEPTH_ZERO_SELF_SIGNED_CERT: "is signed by itself",
  CERT_SIGNATURE_FAILURE: "has a signature that is not the CA's",
  ERR_TLS_CERT_ALTNAME_INVALID: "is for another name",
  CERT_HAS_EXPIRED: "has expired, by this machine's clock",
  CERT_NOT_YET_VALID: "is not valid yet, by this machine's clock",
};

/** Why a failure to reach a server is a matter of trust; undefined when it is not. */
export function untrusted(server: string, reason: string): Finding | undefined {
  const why = Object.hasOwn(UNTRUSTED, reason) ? UNTRUSTED[reason] : undefined;
  if (why === undefined) return undefined;
  const { host } = new URL(server);
  return {
    reason: "NotVerified",
    message: `The certificate that ${server} shows ${why} (${reason}): the CA in the kubeconfig is old or another cluster's, or something else answers in its place; nothing of it is believed`,
    next: `Look: openssl s_client -connect ${host.includes(":") ? host : `${host}:443`} -showcerts </dev/null; then give the cluster's CA in the kubeconfig, which is read again within two seconds`,
  };
}
