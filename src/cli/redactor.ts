/**
 * Takes out of a text what is nobody's business.
 *
 *   names      of pods, namespaces, callers, nodes and hosts, as far as the
 *              report itself has taught them: the same name is the same word
 *              everywhere, so that the report can still be understood
 *   addresses  but for loopback
 *   secrets    nothing should hold one; what looks like one goes all the same
 */

import { isIP } from "node:net";

/** Names that say nothing of whose cluster it is. */
const COMMON: ReadonlySet<string> = new Set([
  ...["default", "kube-system", "kube-public", "kube-node-lease", "localhost", "kubernetes", "kubelet", "holdfast"],
  ...["kube-proxy", "coredns", "admin", "web", "pods", "nodes", "services", "kube-root-ca.crt"],
]);
const MIN_NAME = 3;
const SECRETS = [
  /-----BEGIN [^-]+-----[\s\S]*?-----END [^-]+-----/g,
  /\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g,
  /\b[Bb]earer\s+[^\s"',]+/g,
  /\/\/[^/\s:@"]+:[^/\s@"]+@/g,
];
/** What may be an address; node:net says whether it is one. A time of day is none. */
const ADDRESSES = /\b\d{1,3}(?:\.\d{1,3}){3}\b|(?<![\w:.])[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*/gi;

/** One report's. */
export class Redactor {
  readonly #words = new Map<string, string>();

  /** @param keepsNames whether only secrets go. */
  constructor(private readonly keepsNames: boolean) {}

  /** Names to be replaced wherever they stand. @param kind what they become: "pod-1". */
  learn(kind: string, names: Iterable<string>): void {
    for (const name of names)
      if (name.length >= MIN_NAME && !COMMON.has(name) && !this.#words.has(name))
        this.#words.set(name, `${kind}-${this.#words.size + 1}`);
  }

  /** The text without them. */
  clean(text: string): string {
    let cleaned = text;
    for (const secret of SECRETS) cleaned = cleaned.replace(secret, "(removed)");
    if (this.keepsNames) return cleaned;
    // The longest first: one name may be the beginning of another.
    for (const [name, word] of [...this.#words].sort(([a], [b]) => b.length - a.length))
      cleaned = cleaned.replaceAll(name, word);
    return cleaned.replace(ADDRESSES, (text) =>
      isIP(text) === 0 || /^(127\.|0\.0\.0\.0|::1?$)/.test(text) ? text : this.#address(text),
    );
  }

  #address(address: string): string {
    const word = this.#words.get(address) ?? `address-${this.#words.size + 1}`;
    this.#words.set(address, word);
    return word;
  }
}
