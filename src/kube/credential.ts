/**
 * What proves who we are to an API server.
 */

/** A client certificate with its key, or a bearer token; each call returns what the files hold now. */
export type Credential =
  | { readonly kind: "certificate"; read(): { readonly certPem: string; readonly keyPem: string } }
  | { readonly kind: "token"; read(): string };
