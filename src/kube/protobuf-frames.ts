/**
 * A watch in protobuf that goes by, with some of its events changed: four
 * bytes of length (big-endian), then the event.
 */

import { ByteBuffer, copyBytes, joinBytes } from "./byte-buffer.ts";
import { MAX_OBJECT_BYTES } from "./protobuf-list-reader.ts";

const LENGTH_BYTES = 4;

/** The stream, event by event. */
export class ProtobufFrames {
  readonly #pending = new ByteBuffer();
  #isGivenUp = false;

  /**
   * @param change what becomes of an event.
   * @param onGivenUp an event was too large to be held: from there on nothing is changed.
   */
  constructor(
    private readonly change: (event: Uint8Array) => Uint8Array,
    private readonly onGivenUp: () => void,
  ) {}

  /** @returns what can go on by now. */
  push(chunk: Uint8Array): Uint8Array[] {
    if (this.#isGivenUp) return [chunk];
    this.#pending.append(chunk);
    const out: Uint8Array[] = [];
    for (;;) {
      const bytes = this.#pending.view();
      if (bytes.length < LENGTH_BYTES) return out;
      const size = new DataView(bytes.buffer, bytes.byteOffset, LENGTH_BYTES).getUint32(0);
      if (size > MAX_OBJECT_BYTES) {
        this.#isGivenUp = true;
        this.onGivenUp();
        return [...out, ...this.end()];
      }
      if (bytes.length - LENGTH_BYTES < size) return out;
      const frame = copyBytes(bytes, 0, LENGTH_BYTES + size);
      this.#pending.consume(frame.length);
      out.push(this.#changed(frame));
    }
  }

  /** @returns what is left of a stream that broke off inside an event. */
  end(): Uint8Array[] {
    const rest = copyBytes(this.#pending.view());
    this.#pending.clear();
    return rest.length === 0 ? [] : [rest];
  }

  #changed(frame: Uint8Array): Uint8Array {
    const event = frame.subarray(LENGTH_BYTES);
    const after = this.change(event);
    if (after === event) return frame;
    const length = new Uint8Array(LENGTH_BYTES);
    new DataView(length.buffer).setUint32(0, after.length);
    return joinBytes([length, after]);
  }
}
