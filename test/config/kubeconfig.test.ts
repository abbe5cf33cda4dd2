import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { createAuthority, issueClientCertificate } from "../../src/certificates/authority.ts";
import { KubeconfigError } from "../../src/config/kubeconfig-sheet.ts";
import { loadKubeconfig } from "../../src/config/kubeconfig.ts";

const authority = createAuthority({ commonName: "cluster", nowMs: Date.now() });
const pair = issueClientCertificate(authority, { commonName: "system:node:gw-1", organizations: ["system:nodes"] });
const otherPair = issueClientCertificate(authority, {
  commonName: "system:node:gw-1",
  organizations: ["system:nodes"],
});
const base64 = (text: string) => Buffer.from(text).toString("base64");
const withData = { "client-certificate-data": base64(pair.certPem), "client-key-data": base64(pair.keyPem) };

interface Parts {
  readonly cluster?: object;
  readonly user?: object;
  readonly top?: object;
}

function temporary(): string {
  return mkdtempSync(join(tmpdir(), "holdfast-kubeconfig-"));
}

/** A kubeconfig whose user and cluster stand second, so that an index in a message means something. */
function document({ cluster = {}, user = withData, top = {} }: Parts = {}): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "other", cluster: { server: 7 } },
      {
        name: "c",
        cluster: {
          server: "https://10.0.0.1:6443",
          "certificate-authority-data": base64(authority.certPem),
          ...cluster,
        },
      },
    ],
    users: [
      { name: "other", user: { exec: {} } },
      { name: "u", user },
    ],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
    ...top,
  };
}

function written(content: object | string, dir = temporary()): string {
  const path = join(dir, "kubelet.conf");
  writeFileSync(path, typeof content === "string" ? content : Bun.YAML.stringify(content, undefined, 2));
  return path;
}

function failure(path: string): KubeconfigError {
  try {
    loadKubeconfig(path);
  } catch (error) {
    if (error instanceof KubeconfigError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

/** A clock whose monotonic time is moved by hand. */
function handClock(): { clock: typeof systemClock; passSecond(): void } {
  let ms = 0;
  return { clock: { ...systemClock, monotonicMs: () => ms }, passSecond: () => void (ms += 1_000) };
}

test("the current context's server, CA and certificate are taken; its neighbours are not judged", () => {
  for (const path of [written(document()), written(JSON.stringify(document()))]) {
    const { server, caPem, credential, warnings } = loadKubeconfig(path);
    expect(server).toBe("https://10.0.0.1:6443");
    expect(caPem()).toBe(authority.certPem);
    expect(credential.read()).toEqual({ certPem: pair.certPem, keyPem: pair.keyPem.trimEnd() });
    expect(warnings).toEqual([]);
  }
});

test("files are found from the kubeconfig's folder, and one file may hold certificate and key, as kubelet's does", () => {
  const dir = temporary();
  mkdirSync(join(dir, "pki"));
  writeFileSync(join(dir, "pki", "ca.crt"), `# the cluster's\n${authority.certPem}`);
  writeFileSync(join(dir, "pki", "current.pem"), pair.certPem + pair.keyPem);
  const cluster = { "certificate-authority-data": "", "certificate-authority": "pki/ca.crt" };
  const { caPem, credential } = loadKubeconfig(
    written(
      document({
        cluster,
        user: { "client-certificate": "pki/current.pem", "client-key": join(dir, "pki", "current.pem") },
      }),
      dir,
    ),
  );
  expect(caPem()).toBe(authority.certPem);
  expect(credential.read()).toEqual({ certPem: pair.certPem, keyPem: pair.keyPem.trimEnd() });
});

test("name to verify, proxy and token are taken", () => {
  const cluster = { "tls-server-name": "api.example", "proxy-url": "http://proxy:3128" };
  const { tlsServerName, proxyUrl, credential } = loadKubeconfig(
    written(document({ cluster, user: { token: " abc.def \n" } })),
  );
  expect({ tlsServerName, proxyUrl }).toEqual({ tlsServerName: "api.example", proxyUrl: "http://proxy:3128" });
  expect(credential).toMatchObject({ kind: "token" });
  expect(credential.read()).toBe("abc.def");
});

const secret = "s3cr3t-s3cr3t";
const refusals: [string, object | string, string, RegExp][] = [
  ["an empty file", "\n", "KUBECONFIG_EMPTY", /the file is empty/],
  ["a comment alone", "# nothing\n", "KUBECONFIG_EMPTY", /found nothing/],
  ["text that is not YAML", `a: [${secret}`, "KUBECONFIG_NOT_YAML", /neither YAML nor JSON/],
  ["a list", "- a\n", "KUBECONFIG_NOT_YAML", /found a list of 1/],
  [
    "no current context",
    document({ top: { "current-context": "" } }),
    "KUBECONFIG_CONTEXT",
    /: current-context is not set.*use-context/,
  ],
  [
    "a context that is not there",
    document({ top: { "current-context": "y" } }),
    "KUBECONFIG_CONTEXT",
    /names "y", which is not among the 1 contexts/,
  ],
  [
    "a cluster that is not there",
    document({ top: { contexts: [{ name: "x", context: { cluster: "d", user: "u" } }] } }),
    "KUBECONFIG_CONTEXT",
    /contexts\[0\]\.context\.cluster names "d"/,
  ],
  [
    "a context without user",
    document({ top: { contexts: [{ name: "x", context: { cluster: "c" } }] } }),
    "KUBECONFIG_FIELD",
    /contexts\[0\]\.context\.user is missing; add it/,
  ],
  [
    "clusters that are no list",
    document({ top: { clusters: {} } }),
    "KUBECONFIG_FIELD",
    /clusters should be a list, and is a mapping/,
  ],
  [
    "no CA",
    document({ cluster: { "certificate-authority-data": "" } }),
    "KUBECONFIG_FIELD",
    /clusters\[1\]\.cluster\.certificate-authority-data is missing/,
  ],
  [
    "a CA that is PEM instead of base64",
    document({ cluster: { "certificate-authority-data": authority.certPem } }),
    "KUBECONFIG_FIELD",
    /should be base64, and is PEM itself/,
  ],
  [
    "a CA that is something else",
    document({ cluster: { "certificate-authority-data": base64(secret) } }),
    "KUBECONFIG_FIELD",
    /should be PEM certificates, and is 13 characters of text/,
  ],
  [
    "a damaged CA among good ones",
    document({
      cluster: { "certificate-authority-data": base64(authority.certPem + authority.certPem.replace(/\n.{60}/, "\n")) },
    }),
    "KUBECONFIG_FIELD",
    /holds 2 PEM certificates, of which number 2/,
  ],
  [
    "a CA file that is not there",
    document({ cluster: { "certificate-authority-data": "", "certificate-authority": "ca.crt" } }),
    "KUBECONFIG_FILE",
    /clusters\[1\]\.cluster\.certificate-authority names ".*\/ca\.crt", which is not there/,
  ],
  [
    "certificates unchecked",
    document({ cluster: { "insecure-skip-tls-verify": true } }),
    "KUBECONFIG_UNSUPPORTED",
    /insecure-skip-tls-verify is true/,
  ],
  [
    "a server in the clear",
    document({ cluster: { server: "http://10.0.0.1" } }),
    "KUBECONFIG_FIELD",
    /clusters\[1\]\.cluster\.server uses http:\/\/; expected https:\/\/HOST:PORT/,
  ],
  [
    "a server that is a host",
    document({ cluster: { server: "10.0.0.1:6443" } }),
    "KUBECONFIG_FIELD",
    /server is not a URL/,
  ],
  [
    "a server with a path",
    document({ cluster: { server: "https://r/k8s/c-1" } }),
    "KUBECONFIG_FIELD",
    /carries a path/,
  ],
  [
    "a server with a password",
    document({ cluster: { server: `https://me:${secret}@r` } }),
    "KUBECONFIG_FIELD",
    /carries a user or a password/,
  ],
  [
    "a server that is a number",
    document({ cluster: { server: 12 } }),
    "KUBECONFIG_FIELD",
    /clusters\[1\]\.cluster\.server should be text, and is a number/,
  ],
  [
    "a SOCKS proxy",
    document({ cluster: { "proxy-url": `socks5://me:${secret}@p:1` } }),
    "KUBECONFIG_UNSUPPORTED",
    /proxy-url is a socks5:\/\/ proxy/,
  ],
  [
    "a login program",
    document({ user: { exec: { command: "aws" } } }),
    "KUBECONFIG_UNSUPPORTED",
    /users\[1\]\.user\.exec runs a program/,
  ],
  [
    "an auth provider",
    document({ user: { "auth-provider": { name: "gcp" } } }),
    "KUBECONFIG_UNSUPPORTED",
    /users\[1\]\.user\.auth-provider/,
  ],
  [
    "a user name",
    document({ user: { username: "me", password: secret } }),
    "KUBECONFIG_UNSUPPORTED",
    /users\[1\]\.user\.username/,
  ],
  [
    "impersonation",
    document({ user: { ...withData, as: "me" } }),
    "KUBECONFIG_UNSUPPORTED",
    /users\[1\]\.user\.as asks to act as somebody else/,
  ],
  ["no credential", document({ user: {} }), "KUBECONFIG_FIELD", /users\[1\]\.user holds neither/],
  [
    "a certificate without key",
    document({ user: { "client-certificate-data": base64(pair.certPem) } }),
    "KUBECONFIG_FIELD",
    /users\[1\]\.user\.client-key-data is missing/,
  ],
  [
    "another certificate's key",
    document({ user: { ...withData, "client-key-data": base64(otherPair.keyPem) } }),
    "KUBECONFIG_KEY_MISMATCH",
    /users\[1\]\.user\.client-key-data does not belong to users\[1\]\.user\.client-certificate-data/,
  ],
  [
    "a key that is none",
    document({ user: { ...withData, "client-key-data": base64(secret) } }),
    "KUBECONFIG_FIELD",
    /client-key-data should be a PEM private key, and is 13 characters/,
  ],
  [
    "a key cut short",
    document({ user: { ...withData, "client-key-data": base64(pair.keyPem.replace(/\n.{40}/, "\n")) } }),
    "KUBECONFIG_FIELD",
    /client-key-data is a PEM private key that cannot be read/,
  ],
  [
    "a token of two lines",
    document({ user: { token: `${secret}\n${secret}` } }),
    "KUBECONFIG_FIELD",
    /users\[1\]\.user\.token should be one token/,
  ],
  [
    "a token that is a number",
    document({ user: { token: 123456 } }),
    "KUBECONFIG_FIELD",
    /users\[1\]\.user\.token should be text, and is a number/,
  ],
];
test.each(refusals)("%s is refused by field, without its value", (_, content, code, message) => {
  const path = written(content);
  const error = failure(path);
  expect(error.message).toMatch(message);
  expect(error.message).toStartWith(`Cannot use kubeconfig "${path}": `);
  expect(error.code).toBe(code as typeof error.code);
  for (const value of [secret, "123456", pair.keyPem.split("\n")[1]!, otherPair.keyPem.split("\n")[1]!])
    expect(error.message).not.toContain(value);
});

test("a kubeconfig that is missing or a folder says so", () => {
  const dir = temporary();
  expect(failure(join(dir, "none"))).toMatchObject({
    code: "KUBECONFIG_UNREADABLE",
    message: expect.stringContaining("there is no such file; give another one with --kubeconfig"),
  });
  expect(failure(dir).message).toContain("it is a folder");
});

test("an expired certificate is a warning, because what is kept can still be served", () => {
  const old = issueClientCertificate(authority, { commonName: "n", days: -1 });
  const { warnings } = loadKubeconfig(
    written(
      document({ user: { "client-certificate-data": base64(old.certPem), "client-key-data": base64(old.keyPem) } }),
    ),
  );
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(/users\[1\]\.user\.client-certificate expired at .*renew it/);
});

test("unknown fields are one warning that lists them", () => {
  const { warnings } = loadKubeconfig(
    written(
      document({ cluster: { speed: 1 }, user: { ...withData, colour: secret }, top: { extra: {}, preferences: {} } }),
    ),
  );
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("unknown fields are ignored: extra, clusters[1].cluster.speed, users[1].user.colour");
  expect(warnings[0]).not.toContain(secret);
});

test("a certificate beside a token is used, with a warning", () => {
  const { credential, warnings } = loadKubeconfig(written(document({ user: { ...withData, token: "t" } })));
  expect(credential.kind).toBe("certificate");
  expect(warnings).toHaveLength(1);
});

test("a token file is read anew when it changed, and looked at once a second", () => {
  const dir = temporary();
  const file = join(dir, "token");
  writeFileSync(file, "one\n");
  const { clock, passSecond } = handClock();
  const warnings: string[] = [];
  const { credential } = loadKubeconfig(written(document({ user: { tokenFile: "token", token: "value" } }), dir), {
    clock,
    log: { ...silentLog, warn: (message) => void warnings.push(message) },
  });
  expect(credential.read()).toBe("one");
  writeFileSync(file, "second\n");
  expect(credential.read()).toBe("one");
  passSecond();
  expect(credential.read()).toBe("second");
  writeFileSync(file, "");
  for (let i = 0; i < 3; i++) {
    passSecond();
    expect(credential.read()).toBe("second");
  }
  expect(warnings).toEqual(["new content cannot be used, the former stands"]);
  writeFileSync(file, "third-one\n");
  passSecond();
  expect(credential.read()).toBe("third-one");
});

test("a pair replaced one file after the other is never handed out torn", () => {
  const dir = temporary();
  const place = (name: string, content: string) => {
    writeFileSync(join(dir, `${name}.new`), content);
    renameSync(join(dir, `${name}.new`), join(dir, name));
  };
  place("c.crt", pair.certPem);
  place("c.key", pair.keyPem);
  const { clock, passSecond } = handClock();
  const { credential } = loadKubeconfig(
    written(document({ user: { "client-certificate": "c.crt", "client-key": "c.key" } }), dir),
    { clock, log: silentLog },
  );
  const first = credential.read();
  place("c.crt", otherPair.certPem);
  passSecond();
  expect(credential.read()).toEqual(first);
  place("c.key", otherPair.keyPem);
  passSecond();
  expect(credential.read()).toEqual({ certPem: otherPair.certPem, keyPem: otherPair.keyPem.trimEnd() });
});

test("a kubeconfig written anew brings its CA and its pair; half of it, another server or another kind changes nothing", () => {
  const next = createAuthority({ commonName: "next", nowMs: Date.now() });
  const { clock, passSecond } = handClock();
  const dir = temporary();
  const reasons: string[] = [];
  const path = written(document(), dir);
  const kubeconfig = loadKubeconfig(path, {
    clock,
    log: { ...silentLog, warn: (_, fields) => void reasons.push(String(fields?.["reason"])) },
  });
  const both = authority.certPem + next.certPem;
  const cluster = { "certificate-authority-data": base64(both) };
  const rewrite = (content: object | string) => {
    written(content, dir);
    passSecond();
  };
  rewrite(document({ cluster }));
  expect(kubeconfig.caPem()).toBe(both);
  rewrite(JSON.stringify(document({ cluster })).slice(0, 400));
  expect(kubeconfig.caPem()).toBe(both);
  expect(kubeconfig.followed.problem).toContain("it is neither YAML nor JSON");
  rewrite(document({ cluster: { ...cluster, server: "https://10.0.0.9:6443" } }));
  expect(kubeconfig.followed.problem).toContain("restart holdfast");
  rewrite(document({ cluster, user: { token: "t" } }));
  expect(kubeconfig.credential.read()).toEqual({ certPem: pair.certPem, keyPem: pair.keyPem.trimEnd() });
  expect(kubeconfig.followed.problem).toContain("restart holdfast");
  rewrite(
    document({
      cluster: { "certificate-authority-data": base64(next.certPem) },
      user: {
        "client-certificate-data": base64(otherPair.certPem),
        "client-key-data": base64(otherPair.keyPem),
      },
    }),
  );
  expect(kubeconfig.followed.problem).toBeUndefined();
  expect(kubeconfig.caPem()).toBe(next.certPem);
  expect(kubeconfig.credential.read()).toEqual({ certPem: otherPair.certPem, keyPem: otherPair.keyPem.trimEnd() });
  expect(reasons).toHaveLength(2); // neither YAML, and the restart: the same problem is told once
});

test("kubelet's rotated pair, one file behind a symbolic link, is taken when the link moves", () => {
  const dir = temporary();
  const place = (name: string, { certPem, keyPem }: typeof pair) => {
    writeFileSync(join(dir, name), certPem + keyPem);
    symlinkSync(name, join(dir, "current.new"));
    renameSync(join(dir, "current.new"), join(dir, "current.pem"));
  };
  place("1.pem", pair);
  const { clock, passSecond } = handClock();
  const { credential } = loadKubeconfig(
    written(document({ user: { "client-certificate": "current.pem", "client-key": "current.pem" } }), dir),
    { clock, log: silentLog },
  );
  expect(credential.read()).toMatchObject({ certPem: pair.certPem });
  place("2.pem", otherPair);
  passSecond();
  expect(credential.read()).toEqual({ certPem: otherPair.certPem, keyPem: otherPair.keyPem.trimEnd() });
});
