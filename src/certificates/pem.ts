/**
 * The blocks of a PEM text, without what people and programs write around them.
 *
 * Source: RFC 7468.
 */

import { X509Certificate } from "node:crypto";

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const PRIVATE_KEY = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]+?-----END \1-----/;

/** Its certificates' blocks, in their order, each without its last newline; nothing is said of their content. */
export function certificateBlocks(pem: string): string[] {
  return pem.match(CERTIFICATE) ?? [];
}

/** Its certificates, read. @throws {Error} on one that cannot be. */
export function certificatesOf(pem: string): X509Certificate[] {
  return certificateBlocks(pem).map((block) => new X509Certificate(block));
}

/** Its first private key's block: kubelet keeps certificate and key in one file. */
export function privateKeyBlock(pem: string): string | undefined {
  return PRIVATE_KEY.exec(pem)?.[0];
}
