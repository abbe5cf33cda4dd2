/**
 * What is read of a kubeconfig: loosely, for it belongs to others too.
 *
 * Source: k8s.io/client-go/tools/clientcmd/api/v1.
 */

import * as v from "valibot";

const text = v.optional(v.nullable(v.string()));
const anything = v.optional(v.unknown());
const named = (field: string) =>
  v.optional(v.nullable(v.array(v.looseObject({ name: v.string(), [field]: v.unknown() }))));
/** The file. */
export const documentSchema = v.looseObject({
  apiVersion: text,
  kind: text,
  "current-context": text,
  clusters: named("cluster"),
  users: named("user"),
  contexts: named("context"),
  preferences: anything,
  extensions: anything,
});
/** One of contexts. */
export const contextSchema = v.looseObject({
  cluster: v.string(),
  user: v.string(),
  namespace: text,
  extensions: anything,
});
/** One of clusters. */
export const clusterSchema = v.looseObject({
  server: text,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": v.optional(v.nullable(v.boolean())),
  "tls-server-name": text,
  "proxy-url": text,
  "disable-compression": anything,
  extensions: anything,
});
/** One of users. */
export const userSchema = v.looseObject({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  exec: anything,
  "auth-provider": anything,
  username: text,
  password: text,
  as: anything,
  "as-uid": anything,
  "as-groups": anything,
  "as-user-extra": anything,
  extensions: anything,
});

/** A user as it stands there. */
export type User = v.InferOutput<typeof userSchema>;
/** A cluster as it stands there. */
export type Cluster = v.InferOutput<typeof clusterSchema>;
