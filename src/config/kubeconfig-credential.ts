/**
 * The credential of a kubeconfig's user: only what an unattended daemon can use.
 */

import { X509Certificate, createPrivateKey } from "node:crypto";
import { privateKeyBlock } from "../certificates/pem.ts";
import type { User } from "./kubeconfig-schema.ts";
import { isBlank, shapeOf, type FieldText, type Sheet } from "./kubeconfig-sheet.ts";

/** A credential as it stood in its files at one moment. */
export type CredentialContent =
  | { readonly kind: "certificate"; readonly certPem: string; readonly keyPem: string }
  | { readonly kind: "token"; readonly token: string };

/** The user's credential. @throws {KubeconfigError} */
export function credentialOf(sheet: Sheet, at: string, user: User): CredentialContent {
  refuseUnusable(sheet, at, user);
  const hasToken = !isBlank(user.token) || !isBlank(user.tokenFile);
  if (!isBlank(user["client-certificate-data"]) || !isBlank(user["client-certificate"])) {
    if (hasToken) sheet.warn(`${at} holds a client certificate and a token; the certificate is used`);
    return { kind: "certificate", ...pairOf(sheet, at, user) };
  }
  if (!hasToken)
    throw sheet.error(
      at,
      "KUBECONFIG_FIELD",
      "holds neither client-certificate(-data) with client-key(-data) nor token or tokenFile; add one of them",
    );
  // As client-go: a file wins over a value, because it can be renewed.
  const { tokenFile } = user;
  const token = isBlank(tokenFile)
    ? tokenOf(sheet, `${at}.token`, user.token!)
    : tokenOf(sheet, `${at}.tokenFile`, sheet.fileContent(`${at}.tokenFile`, sheet.resolved(tokenFile)));
  return { kind: "token", token };
}

function refuseUnusable(sheet: Sheet, at: string, user: User): void {
  for (const field of ["exec", "auth-provider"] as const) {
    if (user[field] !== undefined && user[field] !== null)
      throw sheet.error(
        `${at}.${field}`,
        "KUBECONFIG_UNSUPPORTED",
        "runs a program to log in, which cannot work on an unattended node; use a client certificate or a token",
      );
  }
  for (const field of ["username", "password"] as const) {
    if (!isBlank(user[field]))
      throw sheet.error(
        `${at}.${field}`,
        "KUBECONFIG_UNSUPPORTED",
        "is basic authentication, which Kubernetes removed; use a client certificate or a token",
      );
  }
  for (const field of ["as", "as-uid", "as-groups", "as-user-extra"] as const) {
    // Leaving it out silently would act with more rights than were asked for.
    if (!isBlank(user[field] as string | undefined))
      throw sheet.error(
        `${at}.${field}`,
        "KUBECONFIG_UNSUPPORTED",
        "asks to act as somebody else, which Holdfast does not do; use that user's own credential",
      );
  }
}

function tokenOf(sheet: Sheet, field: string, given: string): string {
  const token = given.trim();
  if (token === "")
    throw sheet.error(field, "KUBECONFIG_FIELD", "leads to no token, only to empty text; write the token there");
  if (/[^\x21-\x7e]/.test(token))
    throw sheet.error(
      field,
      "KUBECONFIG_FIELD",
      `should be one token, and is ${token.length} characters with spaces or line breaks among them; write the token alone`,
    );
  return token;
}

/** Certificate and key, if they belong together. */
function pairOf(sheet: Sheet, at: string, user: User): { readonly certPem: string; readonly keyPem: string } {
  const certificate = sheet.content(
    at,
    "client-certificate",
    user["client-certificate-data"],
    user["client-certificate"],
  )!;
  const key = sheet.content(at, "client-key", user["client-key-data"], user["client-key"]);
  if (key === undefined)
    throw sheet.error(
      `${at}.client-key-data`,
      "KUBECONFIG_FIELD",
      "is missing beside the client certificate; add it, or client-key with a file",
    );
  const certPem = sheet.certificates(certificate);
  // Kubelet keeps both in one file: only the key's own block is handed on.
  const keyPem = privateKeyBlock(key.text);
  if (keyPem === undefined)
    throw sheet.error(
      key.field,
      "KUBECONFIG_FIELD",
      `should be a PEM private key, and is ${shapeOf(key.text)}; put the key there`,
    );
  if (!belongTogether(sheet, certPem, key, keyPem))
    throw sheet.error(
      key.field,
      "KUBECONFIG_KEY_MISMATCH",
      `does not belong to ${certificate.field}; give the pair that was issued together`,
    );
  return { certPem, keyPem };
}

function belongTogether(sheet: Sheet, certPem: string, key: FieldText, keyPem: string): boolean {
  try {
    return new X509Certificate(certPem).checkPrivateKey(createPrivateKey(keyPem));
  } catch {
    throw sheet.error(
      key.field,
      "KUBECONFIG_FIELD",
      "is a PEM private key that cannot be read; it is damaged, or locked with a password: put a plain key there",
    );
  }
}
