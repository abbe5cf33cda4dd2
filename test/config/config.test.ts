import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthority, issueClientCertificate } from "../../src/certificates/authority.ts";
import { parseAddress } from "../../src/config/address.ts";
import { ConfigError } from "../../src/config/config-error.ts";
import { loadConfig, type ConfigFlags } from "../../src/config/config.ts";
import { loadPlaces } from "../../src/config/places.ts";

const authority = createAuthority({ commonName: "cluster", nowMs: Date.now() });
const pair = issueClientCertificate(authority, { commonName: "system:node:gw-1", organizations: ["system:nodes"] });

interface Files {
  readonly dir: string;
  readonly kubeconfig: string;
  /** Writes the configuration's body below its two first lines, which are lines 1 and 2. */
  config(body: string): string;
}

function files(options: { readonly server?: string; readonly cluster?: object; readonly user?: object } = {}): Files {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-config-"));
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const kubeconfig = join(dir, "kubelet.conf");
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      clusters: [
        {
          name: "c",
          cluster: {
            server: options.server ?? "https://10.0.0.1:6443",
            "certificate-authority-data": base64(authority.certPem),
            ...options.cluster,
          },
        },
      ],
      users: [
        {
          name: "u",
          user: options.user ?? {
            "client-certificate-data": base64(pair.certPem),
            "client-key-data": base64(pair.keyPem),
          },
        },
      ],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
      "current-context": "x",
    }),
  );
  return {
    dir,
    kubeconfig,
    config(body) {
      const path = join(dir, "config.yaml");
      writeFileSync(path, `apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n${body}`);
      return path;
    },
  };
}

function refusal(flags: ConfigFlags, env: Record<string, string> = {}): string {
  try {
    loadConfig(flags, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

test("with a kubeconfig alone, everything else has its default", () => {
  const { kubeconfig } = files();
  const { config, warnings } = loadConfig({ kubeconfig }, {});
  expect(warnings).toEqual([]);
  expect(config).toMatchObject({
    upstream: { servers: ["https://10.0.0.1:6443"] },
    listen: [{ host: "127.0.0.1", port: 10268 }],
    healthListen: { host: "127.0.0.1", port: 10267 },
    stateDir: "/var/lib/holdfast",
    adminSocketPath: "/run/holdfast/admin.sock",
    clients: [],
    nodeAgents: [
      "system:serviceaccount:kube-system:multus",
      "system:serviceaccount:kube-system:calico-node",
      "system:serviceaccount:kube-system:calico-cni-plugin",
      "system:serviceaccount:calico-system:calico-node",
      "system:serviceaccount:calico-system:calico-cni-plugin",
    ],
    expiredTokensFor: [],
    limits: {
      scopeMaxItems: 20_000,
      scopeMaxBytes: 134_217_728,
      storeMaxBytes: 536_870_912,
      ringMaxEvents: 1_024,
      ringMaxBytes: 1_048_576,
      allRingsMaxBytes: 12_582_912,
      lingerMs: 300_000,
      retentionMs: 604_800_000,
      bookmarkIntervalMs: 45_000,
      leaseIntervalMs: 0,
      podSecretsMs: 86_400_000,
    },
  });
  expect(config.upstream.caPem()).toBe(authority.certPem);
  expect(config.clientCaPem()).toBe(authority.certPem);
});

test("a place is its hosts under every type of address, a name under no type of IPs", () => {
  const { kubeconfig, config: write } = files();
  const path = write(`place: {hosts: [gw.example, 203.0.113.7], port: 31250}\n`);
  const { config } = loadConfig({ kubeconfig, config: path }, {});
  const hosts = (type: string) => config.place!.addresses.filter((one) => one.type === type).map((one) => one.address);
  expect(config.place!.port).toBe(31250);
  expect(hosts("Hostname")).toEqual(["gw.example", "203.0.113.7"]);
  expect(hosts("InternalIP")).toEqual(["203.0.113.7"]);
});

test("a flag wins over the environment, that over the file, that over the default; blank variables count as unset", () => {
  const { kubeconfig, config: write, dir } = files();
  const config = write(
    "kubeconfig: kubelet.conf\nstateDir: state\nlisten: ['127.0.0.1:1', '[::1]:2']\nhealthListen: 127.0.0.1:3\nlimits:\n  linger: 1m\n  retention: 1h\n",
  );
  const env = {
    HOLDFAST_CONFIG: config,
    HOLDFAST_LISTEN: "127.0.0.1:4, 169.254.20.1:5",
    HOLDFAST_HEALTH_LISTEN: "",
    HOLDFAST_LINGER: "2m",
    HOLDFAST_SCOPE_MAX_ITEMS: "7",
    HOLDFAST_SERVERS: "https://b:6443",
  };
  const fromFile = loadConfig({ config }, {}).config;
  expect(fromFile).toMatchObject({
    listen: [
      { host: "127.0.0.1", port: 1 },
      { host: "::1", port: 2 },
    ],
    healthListen: { port: 3 },
    stateDir: join(dir, "state"),
    adminSocketPath: join(dir, "state", "admin.sock"),
    limits: { lingerMs: 60_000, retentionMs: 3_600_000 },
  });
  const fromEnv = loadConfig({}, env).config;
  expect(fromEnv).toMatchObject({
    listen: [{ port: 4 }, { host: "169.254.20.1", port: 5 }],
    healthListen: { port: 3 },
    limits: { lingerMs: 120_000, retentionMs: 3_600_000, scopeMaxItems: 7 },
    upstream: { servers: ["https://10.0.0.1:6443", "https://b:6443"] },
  });
  const fromFlags = loadConfig({ kubeconfig, config, listen: ["127.0.0.1:0"], stateDir: "/tmp/other" }, env).config;
  expect(fromFlags).toMatchObject({
    listen: [{ port: 0 }],
    stateDir: "/tmp/other",
    adminSocketPath: "/tmp/other/admin.sock",
  });
});

const head = "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n";
const broken: [string, string, string][] = [
  [
    "an unknown field",
    `${head}kubeconfig: k\nlistenn: 127.0.0.1:1\n`,
    ':4: unknown field "listenn" in HoldfastConfiguration, did you mean "listen"',
  ],
  [
    "an unknown field of another case",
    `${head}stateDIR: /s\n`,
    ':3: unknown field "stateDIR" in HoldfastConfiguration, did you mean "stateDir"',
  ],
  ["an unknown field like no other", `${head}colour: red\n`, ':3: unknown field "colour" in HoldfastConfiguration'],
  [
    "an unknown bound",
    `${head}limits:\n  linger: 5m\n  retentoin: 1h\n`,
    ':5: unknown field "retentoin" in limits, did you mean "retention"',
  ],
  [
    "an unknown field of a client",
    `${head}clients:\n- name: a\n  kubeconfig: b\n- name: c\n  kubconfig: d\n`,
    ':7: unknown field "kubconfig" in clients[1], did you mean "kubeconfig"',
  ],
  [
    "a duration without unit",
    `${head}limits:\n  linger: 300\n`,
    ':4: field "limits.linger": expected a duration such as "45s", "5m" or "168h", found 300',
  ],
  [
    "a duration of words",
    `${head}limits:\n  linger: 5 minutes\n`,
    ':4: field "limits.linger": expected a duration such as "45s", "5m" or "168h", 576h at most, found "5 minutes"',
  ],
  [
    "a timer that would fire at once",
    `${head}limits:\n  linger: 600h\n`,
    ':4: field "limits.linger": expected a duration',
  ],
  [
    "bookmarks without pause",
    `${head}limits:\n  bookmarkInterval: 0s\n`,
    ':4: field "limits.bookmarkInterval": expected a duration',
  ],
  [
    "a size of nothing",
    `${head}limits:\n  scopeMaxBytes: 0\n`,
    ':4: field "limits.scopeMaxBytes": expected a size such as "64Mi", more than 0, found "0"',
  ],
  [
    "a count that is none",
    `${head}limits:\n  scopeMaxItems: 1.5\n`,
    ':4: field "limits.scopeMaxItems": expected a whole number, 1 or more, found 1.5',
  ],
  [
    "a node agent that is no service account",
    `${head}nodeAgents:\n- system:serviceaccount:kube-system:multus\n- multus\n`,
    ':5: field "nodeAgents[1]": expected a service account by its user name, such as "system:serviceaccount:kube-system:multus", found "multus"',
  ],
  [
    "text for a list",
    `${head}expiredTokensFor: system:serviceaccount:a:b\n`,
    ':3: field "expiredTokensFor": expected a list, found "system:serviceaccount:a:b"',
  ],
  [
    "more service accounts than are looked through",
    `${head}nodeAgents: [${Array(65).fill("system:serviceaccount:a:b").join(", ")}]\n`,
    ':3: field "nodeAgents": expected a list of 64 at most, found a list',
  ],
  [
    "a place that is a URL",
    `${head}place: {hosts: ["https://gw.example"], port: 10250}\n`,
    ':3: field "place.hosts[0]": expected an address or a DNS name without a port, such as "203.0.113.7", found "https://gw.example"',
  ],
  [
    "a place nowhere",
    `${head}place: {hosts: [], port: 10250}\n`,
    ':3: field "place.hosts": expected a list of 1 to 8, found a list',
  ],
  [
    "a port that is none",
    `${head}place: {hosts: [gw.example], port: 70000}\n`,
    ':3: field "place.port": expected a port, 1 to 65535, found 70000',
  ],
  ["a number for text", `${head}stateDir: 7\n`, ':3: field "stateDir": expected text, found 7'],
  [
    "a mapping for text or a list",
    `${head}listen: {a: b}\n`,
    ':3: field "listen": expected text or a list, found a mapping',
  ],
  ["nothing for text", `${head}stateDir:\n`, ':3: field "stateDir": expected text, found nothing'],
  [
    "a client without kubeconfig",
    `${head}clients:\n- name: a\n`,
    'field "clients[0].kubeconfig" is missing; expected text',
  ],
  [
    "a field that stands twice",
    `${head}stateDir: /a\nhealthListen: 127.0.0.1:1\nstateDir: /b\n`,
    ':5: field "stateDir" stands there twice',
  ],
  [
    "a kind of another program",
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
    ':1: field "apiVersion": expected "holdfast.dev/v1alpha1", found "kubelet.config.k8s.io/v1beta1"',
  ],
  ["no apiVersion", "kind: HoldfastConfiguration\n", 'field "apiVersion" is missing; expected "holdfast.dev/v1alpha1"'],
  ["an empty file", "", "it is empty; expected apiVersion: holdfast.dev/v1alpha1"],
  ["a list", "- a\n", "it is no mapping"],
  ["text that is not YAML", `${head}listen: [a\n`, "line "],
];
test.each(broken)("%s in the file is refused by line and field", (_, content, message) => {
  const path = join(files().dir, "config.yaml");
  writeFileSync(path, content);
  expect(refusal({ config: path })).toContain(message);
  expect(refusal({ config: path })).toContain(path);
});

test("a configuration that is named must be there", () => {
  expect(refusal({ config: "/nowhere/config.yaml" })).toBe(
    'Cannot read configuration "/nowhere/config.yaml": there is no such file',
  );
  expect(refusal({}, {})).toContain("give one with --kubeconfig FILE");
});

test.each([
  ["127.0.0.1:10268", { host: "127.0.0.1", port: 10268 }],
  ["127.8.9.1:0", { host: "127.8.9.1", port: 0 }],
  ["[::1]:10268", { host: "::1", port: 10268 }],
  ["169.254.20.1:443", { host: "169.254.20.1", port: 443 }],
  ["[fe80::1%eth0]:1", { host: "fe80::1%eth0", port: 1 }],
  ["[febf::1]:1", { host: "febf::1", port: 1 }],
  // Holdfast's own, for pods of a cluster whose Services have addresses of IPv6.
  ["[fd48:6f6c:6466:6173::1]:10268", { host: "fd48:6f6c:6466:6173::1", port: 10268 }],
])("parseAddress takes %s", (text, address) => {
  expect(parseAddress("listen", text)).toEqual(address);
});

test.each([
  ["0.0.0.0:10268", "only loopback and link-local"],
  ["[::]:10268", "only loopback and link-local"],
  ["192.168.1.4:1", "because whoever reaches this port acts near the node's identity"],
  ["[2001:db8::1]:1", "only loopback and link-local"],
  ["[fd48:6f6c:6466:6174::1]:1", "only loopback and link-local"],
  ["[::ffff:192.168.1.4]:1", "only loopback and link-local"],
  ["localhost:1", "expected an IP address, not a name"],
  [":10268", "expected an IP address"],
  ["::1:10268", "expected ADDRESS:PORT"],
  ["127.0.0.1", "expected ADDRESS:PORT"],
  ["127.0.0.1:99999", "expected ADDRESS:PORT"],
])("parseAddress refuses %s and says why", (text, why) => {
  expect(() => parseAddress("listen", text)).toThrow(why);
});

test("addresses that clash, and an API server that is Holdfast itself, are refused", () => {
  const { kubeconfig } = files();
  expect(refusal({ kubeconfig, listen: ["127.0.0.1:1", "127.0.0.1:1"] })).toContain("it is named twice");
  expect(refusal({ kubeconfig, listen: ["127.0.0.1:1"], healthListen: "127.0.0.1:1" })).toContain("--health-listen");
  for (const server of ["https://127.0.0.1:10268", "https://localhost:10268"])
    expect(refusal({ kubeconfig: files({ server }).kubeconfig })).toContain("it is Holdfast's own listener");
  expect(
    loadConfig({ kubeconfig: files({ server: "https://127.0.0.1:6443" }).kubeconfig }, {}).config.upstream.servers,
  ).toEqual(["https://127.0.0.1:6443"]);
});

test("an admin socket whose path is too long is not opened, with a warning", () => {
  const { kubeconfig } = files();
  const { config, warnings } = loadConfig({ kubeconfig, stateDir: `/tmp/${"x".repeat(100)}` }, {});
  expect(config.adminSocketPath).toBeUndefined();
  expect(warnings.join()).toContain("longer than 107 bytes");
});

test("clients are read with their warnings; a name may stand once", () => {
  const { kubeconfig, config } = files();
  const client = files({ user: { token: "t", colour: "red" } }).kubeconfig;
  const loaded = loadConfig(
    { kubeconfig, config: config(`clients:\n- name: system:kube-proxy\n  kubeconfig: ${client}\n`) },
    {},
  );
  expect(loaded.config.clients.map(({ name, credential }) => [name, credential.read()])).toEqual([
    ["system:kube-proxy", "t"],
  ]);
  expect(loaded.warnings.join()).toContain("users[0].user.colour");
  expect(
    refusal({
      kubeconfig,
      config: config(`clients:\n- {name: a, kubeconfig: ${client}}\n- {name: a, kubeconfig: ${client}}\n`),
    }),
  ).toContain('clients[1]: name "a" is there twice');
});

test("the CA of local clients is another file when one is named; a damaged one is found at once", () => {
  const { kubeconfig, dir } = files();
  const other = createAuthority({ commonName: "other", nowMs: Date.now() });
  const clientCaFile = join(dir, "clients.crt");
  writeFileSync(clientCaFile, other.certPem);
  expect(loadConfig({ kubeconfig, clientCaFile }, {}).config.clientCaPem()).toBe(other.certPem);
  writeFileSync(clientCaFile, other.certPem.replace(/\n.{60}/, "\n"));
  expect(refusal({ kubeconfig, clientCaFile })).toContain("certificate number 1 of 1 cannot be read");
  writeFileSync(clientCaFile, "x");
  expect(refusal({ kubeconfig }, { HOLDFAST_CLIENT_CA_FILE: clientCaFile })).toContain(
    "(HOLDFAST_CLIENT_CA_FILE): it holds no PEM certificate",
  );
  expect(refusal({ kubeconfig, clientCaFile: join(dir, "none") })).toContain(
    "(--client-ca-file): there is no such file",
  );
});

const proxies: [string, Record<string, string>, string, string | undefined][] = [
  ["none", {}, "https://api.example:6443", undefined],
  ["HTTPS_PROXY", { HTTPS_PROXY: "http://p:3128" }, "https://api.example:6443", "http://p:3128"],
  ["https_proxy", { https_proxy: "http://p:3128" }, "https://api.example:6443", "http://p:3128"],
  [
    "a blank HTTPS_PROXY",
    { HTTPS_PROXY: "", https_proxy: "http://p:3128" },
    "https://api.example:6443",
    "http://p:3128",
  ],
  ["a proxy without scheme", { HTTPS_PROXY: "p:3128" }, "https://api.example:6443", "http://p:3128"],
  ["NO_PROXY *", { HTTPS_PROXY: "http://p:1", NO_PROXY: "*" }, "https://api.example:6443", undefined],
  ["a suffix", { HTTPS_PROXY: "http://p:1", NO_PROXY: "x, example" }, "https://api.example:6443", undefined],
  ["a dotted suffix", { HTTPS_PROXY: "http://p:1", NO_PROXY: ".example" }, "https://api.example:6443", undefined],
  [
    "a suffix within a label",
    { HTTPS_PROXY: "http://p:1", NO_PROXY: "ample" },
    "https://api.example:6443",
    "http://p:1",
  ],
  ["a range", { HTTPS_PROXY: "http://p:1", NO_PROXY: "10.0.0.0/8" }, "https://10.2.3.4:6443", undefined],
  ["another range", { HTTPS_PROXY: "http://p:1", NO_PROXY: "10.0.0.0/16" }, "https://10.2.3.4:6443", "http://p:1"],
  [
    "a range of IPv6",
    { HTTPS_PROXY: "http://p:1", NO_PROXY: "2001:db8::/32" },
    "https://[2001:db8::1]:6443",
    undefined,
  ],
  ["an address", { HTTPS_PROXY: "http://p:1", NO_PROXY: "10.2.3.4" }, "https://10.2.3.4:6443", undefined],
  ["the same port", { HTTPS_PROXY: "http://p:1", NO_PROXY: "api.example:6443" }, "https://api.example:6443", undefined],
  [
    "another port",
    { HTTPS_PROXY: "http://p:1", NO_PROXY: "api.example:443" },
    "https://api.example:6443",
    "http://p:1",
  ],
  ["loopback", { HTTPS_PROXY: "http://p:1" }, "https://127.0.0.1:6443", undefined],
];
test.each(proxies)("the way to an API server with %s", (_, env, server, proxy) => {
  const { upstream } = loadConfig({ kubeconfig: files({ server }).kubeconfig }, env).config;
  expect(upstream.proxyFor(server)).toBe(proxy);
});

test("the kubeconfig's proxy wins over the environment", () => {
  const { kubeconfig } = files({ cluster: { "proxy-url": "http://own:1" } });
  expect(
    loadConfig({ kubeconfig }, { HTTPS_PROXY: "http://p:1", NO_PROXY: "*" }).config.upstream.proxyFor(
      "https://10.0.0.1:6443",
    ),
  ).toBe("http://own:1");
});

test("a proxy of another kind is refused without its password", () => {
  const message = refusal({ kubeconfig: files().kubeconfig }, { HTTPS_PROXY: "socks5://me:s3cr3t@p:1" });
  expect(message).toContain("found socks5:");
  expect(message).not.toContain("s3cr3t");
});

test("loadPlaces finds the socket where run would open it, without a kubeconfig", () => {
  const { config, dir } = files();
  const path = config("stateDir: state\nadminSocket: a.sock\n");
  expect(loadPlaces({}, {})).toEqual({ stateDir: "/var/lib/holdfast", adminSocketPath: "/run/holdfast/admin.sock" });
  expect(loadPlaces({ config: path }, {})).toEqual({
    stateDir: join(dir, "state"),
    adminSocketPath: join(dir, "a.sock"),
  });
  expect(loadPlaces({ config: path, stateDir: "/tmp/s" }, {})).toEqual({
    stateDir: "/tmp/s",
    adminSocketPath: "/tmp/s/admin.sock",
  });
  expect(loadPlaces({ stateDir: "/tmp/s", adminSocket: "/tmp/b.sock" }, {})).toEqual({
    stateDir: "/tmp/s",
    adminSocketPath: "/tmp/b.sock",
  });
});

test("fields of the node's agents, expired tokens and pods' Secrets are taken; an empty list switches off", () => {
  const { kubeconfig, config: write } = files();
  const name = "system:serviceaccount:cni:agent";
  const body = `nodeAgents: []\nexpiredTokensFor: [${name}]\nlimits: {podSecrets: 0s}\n`;
  const { config } = loadConfig({ kubeconfig, config: write(body) }, { HOLDFAST_LINGER: "1m" });
  expect(config).toMatchObject({ nodeAgents: [], expiredTokensFor: [name], limits: { podSecretsMs: 0 } });
});
