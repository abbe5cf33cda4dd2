/**
 * A list or a watch's head that is answered here as the API server would.
 */

import type { Selection } from "../kube/selectors.ts";
import type { ScopeSnapshot } from "../store/contract.ts";
import type { SourceAnswer } from "../uplink/scope-source.ts";

/** The part of a snapshot that is selected; decided once, for sizes are asked for before items. */
export function selected(whole: ScopeSnapshot, selection: Selection, format: "json" | "protobuf"): ScopeSnapshot {
  const sizes: number[] = [];
  const isSelected: boolean[] = [];
  for (const item of whole.items()) {
    const matches = selection.matches(item, format);
    isSelected.push(matches);
    if (matches) sizes.push(item.bytes.length);
  }
  return {
    listed: whole.listed,
    itemCount: sizes.length,
    itemSizes: () => sizes,
    *items() {
      let index = 0;
      for (const item of whole.items()) if (isSelected[index++] === true) yield item;
    },
    [Symbol.dispose]: () => {},
  };
}

/** An answer as the API server would have given it. */
export class LocalAnswer implements SourceAnswer {
  readonly status = 200;

  constructor(
    private readonly contentType: string,
    readonly chunks: AsyncIterable<Uint8Array>,
  ) {}

  header(name: string): string | undefined {
    return name === "content-type" ? this.contentType : undefined;
  }

  async text(): Promise<string> {
    const parts: Uint8Array[] = [];
    for await (const chunk of this.chunks) parts.push(chunk);
    return Buffer.concat(parts).toString("utf8");
  }
}
