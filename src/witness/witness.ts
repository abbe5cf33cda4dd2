/**
 * The neighbour's side: sees that it is asked, listens, answers under its node's identity.
 *
 * Costs nothing while nobody asks: the question stands in our own Node, which
 * kubelet's watch brings anyway, and a search through its bytes tells whether
 * it is there. Only then its metadata are read and one annotation is written.
 */

import { createPrivateKey, type KeyObject } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { certificatesOf } from "../certificates/pem.ts";
import { QUESTION_ANNOTATION, readQuestion, REPORT_ANNOTATION, type WitnessReport } from "../kube/witness-report.ts";
import { probeNeighbour, type ProbeOutcome } from "./probe.ts";

/** What a witness needs of the daemon. */
export interface WitnessParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Our node as it was last heard of, in whatever form; undefined when nobody follows it. */
  readonly ownNode: () => { readonly name: string; readonly bytes: Uint8Array } | undefined;
  readonly isOnline: () => boolean;
  /** The node's annotations, from the API server. */
  readonly readAnnotations: (name: string) => Promise<Readonly<Record<string, string>> | undefined>;
  /** Writes annotations of the node. */
  readonly annotate: (name: string, annotations: Readonly<Record<string, string>>) => Promise<void>;
  readonly credential: () => { readonly certPem: string; readonly keyPem: string } | undefined;
  /** For tests; default one TCP connection. */
  readonly probe?: (address: string, port: number) => Promise<ProbeOutcome>;
}

const LOOK_EVERY_MS = 5_000;
const MOST_PROBES_A_MINUTE = 64;
const MARK = Buffer.from(QUESTION_ANNOTATION);

/** The witness; `start` looks every few seconds until told to stop. */
export class Witness {
  #answered = "";
  #probes: number[] = [];
  #cancel = () => {};
  #isLooking = false;
  #isStopped = false;

  constructor(private readonly parts: WitnessParts) {}

  /** Begins; the returned function ends it. */
  start(): () => void {
    const again = () => {
      this.#cancel = this.parts.clock.after(LOOK_EVERY_MS, () => {
        void this.look().finally(() => this.#isStopped || again());
      });
    };
    again();
    return () => {
      this.#isStopped = true;
      this.#cancel();
    };
  }

  /** One look; answers a question that was not answered yet. Never throws. */
  async look(): Promise<void> {
    const { ownNode, isOnline, log } = this.parts;
    if (this.#isLooking || !isOnline()) return;
    const own = ownNode();
    if (own === undefined || Buffer.from(own.bytes.buffer, own.bytes.byteOffset, own.bytes.length).indexOf(MARK) < 0)
      return;
    this.#isLooking = true;
    try {
      await this.#answer(own.name);
    } catch (error) {
      log.warn("cannot answer the guard's question", { reason: (error as Error).name });
    } finally {
      this.#isLooking = false;
    }
  }

  async #answer(name: string): Promise<void> {
    const { readAnnotations, annotate, credential, log } = this.parts;
    const annotations = await readAnnotations(name);
    const question = readQuestion(annotations?.[QUESTION_ANNOTATION]);
    const pair = credential();
    if (question === undefined || pair === undefined || question.nonce === this.#answered) return;
    const nodes = await Promise.all(
      question.nodes.map(async ({ name: asked, address, port }) => ({
        name: asked,
        outcome: await this.#probe(address, port),
      })),
    );
    await annotate(name, { [REPORT_ANNOTATION]: await signReport({ iss: name, nonce: question.nonce, nodes }, pair) });
    this.#answered = question.nonce;
    log.info("answered the guard's question", {
      heard: nodes.filter(({ outcome }) => outcome === "heard").length,
      asked: nodes.length,
    });
  }

  async #probe(address: string, port: number): Promise<ProbeOutcome> {
    const nowMs = this.parts.clock.monotonicMs();
    this.#probes = this.#probes.filter((atMs) => nowMs - atMs < 60_000);
    if (this.#probes.length >= MOST_PROBES_A_MINUTE) return "not-tried";
    this.#probes.push(nowMs);
    return await (this.parts.probe ?? probeNeighbour)(address, port);
  }
}

/**
 * Signs a report with a node's key; its certificates go along in x5c.
 *
 * @throws {TypeError} when the key is of a kind that kubelets do not have.
 */
export async function signReport(
  report: WitnessReport,
  { certPem, keyPem }: { readonly certPem: string; readonly keyPem: string },
): Promise<string> {
  const key = createPrivateKey(keyPem);
  const alg = algorithmOf(key);
  const x5c = certificatesOf(certPem).map(({ raw }) => raw.toString("base64"));
  const pkcs8 = key.export({ type: "pkcs8", format: "pem" }).toString();
  // Loaded when somebody asks: most nodes are never asked.
  const { CompactSign, importPKCS8 } = await import("jose");
  return await new CompactSign(Buffer.from(JSON.stringify(report)))
    .setProtectedHeader({ alg, x5c })
    .sign(await importPKCS8(pkcs8, alg));
}

function algorithmOf(key: KeyObject): string {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === "rsa") return "RS256";
  if (key.asymmetricKeyType === "ed25519") return "EdDSA";
  if (curve === "prime256v1") return "ES256";
  if (curve === "secp384r1") return "ES384";
  throw new TypeError("a node's key is of a kind that nobody verifies");
}
