/**
 * What was worked out from a text that comes again and again.
 *
 * Clients send the same few heads, targets and types all day. A table is
 * emptied when it is full: what is in use is back at once, and a stranger who
 * sends something new each time costs no more than working it out did before.
 */

/** A bounded table of results by text. */
export class Remembered<V> {
  readonly #known = new Map<string, V>();

  /**
   * @param most entries.
   * @param mostLength characters; a longer text is worked out each time.
   */
  constructor(
    private readonly most: number,
    private readonly mostLength: number,
  ) {}

  /** The result for a text. What is made is shared: never change it. */
  of(text: string, make: (text: string) => V): V {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const made = make(text);
    if (text.length <= this.mostLength) {
      if (this.#known.size >= this.most) this.#known.clear();
      this.#known.set(text, made);
    }
    return made;
  }
}
