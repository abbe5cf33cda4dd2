/**
 * One Config from file, flags and environment.
 */
import type { Credential } from "./kube/credential.ts";

/** Everything `run` needs, checked and resolved: no file is opened by reading it. */
export interface Config {
  readonly upstream: UpstreamConfig;
  /** Where local clients connect, TLS. One or more of 127.0.0.1, ::1 or a link-local address. */
  readonly listen: readonly ListenAddress[];
  readonly healthListen: ListenAddress;
  readonly stateDir: string;
  readonly adminSocketPath: string;
  /** PEM of the CAs that local client certificates are verified against. */
  readonly clientCaPem: string;
  /** Credentials for local clients on certificates other than the upstream one's subject, by the certificate's CN. */
  readonly clients: readonly { readonly name: string; readonly credential: Credential }[];
  readonly limits: Limits;
}

/** One address to listen on; an IPv6 host stands without brackets. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** How the API servers are reached. */
export interface UpstreamConfig {
  /** Base URLs, https only, without a trailing slash; tried in this order. */
  readonly servers: readonly string[];
  readonly caPem: string;
  /** Name to verify in the server's certificate instead of the URL's host. */
  readonly tlsServerName?: string;
  /** http:// proxy for CONNECT, from the kubeconfig's proxy-url or HTTPS_PROXY/NO_PROXY per server. */
  readonly proxyFor: (server: string) => string | undefined;
  readonly credential: Credential;
}

/** Bounds, with their defaults in config file documentation. */
export interface Limits {
  readonly scopeMaxItems: number;
  readonly scopeMaxBytes: number;
  readonly storeMaxBytes: number;
  readonly ringMaxEvents: number;
  readonly ringMaxBytes: number;
  readonly lingerMs: number;
  readonly retentionMs: number;
  readonly bookmarkIntervalMs: number;
}
