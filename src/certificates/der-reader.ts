/**
 * Reads ASN.1 in its one canonical form (DER), and nothing that comes near it.
 *
 * Two readers that differ about one byte can differ about who a certificate is
 * for: what is approved here is read again by the signer, in another language.
 * So every freedom that BER leaves is refused: indefinite or longer lengths
 * than need be, tags beyond one byte, bytes after the end.
 *
 * Source: X.690, chapters 8 and 10.
 */

import { EdgeError } from "../base/errors.ts";

/** Bytes that are not the DER that was expected; `where` names the part of the document. */
export class DerError extends EdgeError {
  override readonly name = "DerError";
  readonly code = "NOT_DER";

  constructor(
    readonly where: string,
    fault: string,
  ) {
    super(`Cannot read ${where}: ${fault}`);
  }
}

/** Tags used here, by name. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  objectId: 0x06,
  utf8: 0x0c,
  printable: 0x13,
  sequence: 0x30,
  set: 0x31,
  /** [0] IMPLICIT, constructed. */
  context0: 0xa0,
} as const;

/** One element: its tag, what is inside, and the whole with its head. */
export interface DerElement {
  readonly tag: number;
  readonly body: Uint8Array;
  readonly whole: Uint8Array;
}

const MAX_LENGTH_BYTES = 3;

/** Elements in a row. */
export class DerReader {
  #at = 0;

  /** @param where what these bytes are, for messages. */
  constructor(
    private readonly bytes: Uint8Array,
    private readonly where: string,
  ) {}

  /** Whether nothing is left. */
  get isAtEnd(): boolean {
    return this.#at === this.bytes.length;
  }

  /** The next element's tag; undefined at the end. */
  get nextTag(): number | undefined {
    return this.bytes[this.#at];
  }

  /** @throws {DerError} when it is cut short, or not in its shortest form. */
  next(): DerElement {
    const { bytes, where } = this;
    const start = this.#at;
    const tag = bytes[start];
    const first = bytes[start + 1];
    if (tag === undefined || first === undefined) throw new DerError(where, "ends where an element should begin");
    if ((tag & 0x1f) === 0x1f) throw new DerError(where, "tag of more than one byte");
    let head = 2;
    let length = first;
    if (first >= 0x80) {
      const count = first & 0x7f;
      if (count === 0) throw new DerError(where, "length left open");
      if (count > MAX_LENGTH_BYTES) throw new DerError(where, "longer than anything that belongs here");
      head += count;
      length = 0;
      for (let i = 2; i < head; i++) length = length * 256 + (bytes[start + i] ?? 0);
      if (length < 0x80 || length < 256 ** (count - 1)) throw new DerError(where, "length not in its shortest form");
    }
    const end = start + head + length;
    if (end > bytes.length) throw new DerError(where, "cut short");
    this.#at = end;
    return { tag, body: bytes.subarray(start + head, end), whole: bytes.subarray(start, end) };
  }

  /** The next element, which must have this tag. */
  expect(tag: number, what: string): DerElement {
    const found = this.next();
    if (found.tag !== tag) throw new DerError(this.where, `no ${what} where it should be`);
    return found;
  }

  /** The elements inside the next one, which must have this tag. @param where what is inside, for messages. */
  inside(tag: number, where: string): DerReader {
    return new DerReader(this.expect(tag, where).body, where);
  }

  /** All elements that are left. */
  *rest(): Generator<DerElement> {
    while (!this.isAtEnd) yield this.next();
  }

  /** @throws {DerError} when something is left. */
  end(): void {
    if (!this.isAtEnd) throw new DerError(this.where, "something after its end");
  }

  /** OBJECT IDENTIFIER, in dotted form. */
  objectId(): string {
    const { body } = this.expect(TAG.objectId, "object identifier");
    const arcs: number[] = [];
    let arc = 0;
    let isOpen = false;
    for (const byte of body) {
      if (!isOpen && byte === 0x80) throw new DerError(this.where, "object identifier not in its shortest form");
      arc = arc * 128 + (byte & 0x7f);
      if (arc > Number.MAX_SAFE_INTEGER / 128) throw new DerError(this.where, "object identifier too large");
      isOpen = (byte & 0x80) !== 0;
      if (isOpen) continue;
      arcs.push(arc);
      arc = 0;
    }
    const [first] = arcs;
    if (first === undefined || isOpen) throw new DerError(this.where, "object identifier cut short");
    const root = Math.min(Math.floor(first / 40), 2);
    return [root, first - root * 40, ...arcs.slice(1)].join(".");
  }

  /** BOOLEAN DEFAULT FALSE: there only when it is true. */
  flag(): boolean {
    if (this.nextTag !== TAG.boolean) return false;
    const { body } = this.next();
    if (body.length !== 1 || body[0] !== 0xff) throw new DerError(this.where, "flag that is not plainly true");
    return true;
  }

  /** BIT STRING of whole bytes. */
  bits(): Uint8Array {
    const { body } = this.expect(TAG.bitString, "bit string");
    if (body[0] !== 0) throw new DerError(this.where, "bit string of broken bytes");
    return body.subarray(1);
  }
}
