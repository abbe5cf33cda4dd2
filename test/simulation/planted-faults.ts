/**
 * Faults that the simulation must find, or its silence means nothing.
 *
 * Each is a mistake that somebody could make in good faith. They are planted
 * at the seams (the store and the source are handed in) or, where the mistake
 * would sit inside a module, in a copy of it; src itself knows nothing of them.
 */

import type { WatchFrame } from "../../src/kube/codec.ts";
import type { Copy, ListWriter, ScopeIdentity, Store } from "../../src/store/contract.ts";
import type { Promised } from "./checks.ts";
import { editedCode, type Edit } from "./code.ts";
import { MemoryDisk } from "./disk.ts";
import type { Seams } from "./node-process.ts";
import type { WorldOptions } from "./world.ts";

/** A mistake, and where it is planted. */
export interface PlantedFault {
  readonly name: string;
  /** The promises that it may be caught by. */
  readonly breaks: readonly Promised[];
  readonly edits?: readonly Edit[];
  readonly seams?: Seams;
  readonly disk?: WorldOptions["disk"];
  /** Where it is at large: among the scopes alone, on the real way of a request, or where kubelet writes while cut. Default the scopes. */
  readonly at?: "scopes" | "way" | "kubelet";
  /** It needs so rare a meeting of things that only this world is tried. */
  readonly seed?: number;
}

/** The worlds in which a fault is at large. */
export async function worldsWith({ edits, seams, disk }: PlantedFault): Promise<WorldOptions> {
  return {
    realStoreEvery: 0,
    ...(edits === undefined ? {} : { code: await editedCode(edits) }),
    ...(seams === undefined ? {} : { seams }),
    ...(disk === undefined ? {} : { disk }),
  };
}

/** An object with some of its members replaced; the others see the object itself. */
function withChanges<T extends object>(plain: T, changed: Partial<T>): T {
  return new Proxy(plain, {
    get(target, name) {
      const own: unknown = name in changed ? (changed as never)[name] : (target as never)[name];
      return typeof own === "function" ? (own.bind(target) as unknown) : own;
    },
  });
}

/** A store with some methods replaced, and some of its copies'. */
function overStore(
  changeStore: (store: Store, parts: Parameters<NonNullable<Seams["store"]>>[1]) => Partial<Store>,
  changeCopy: (copy: Copy, store: Store, parts: Parameters<NonNullable<Seams["store"]>>[1]) => Partial<Copy>,
): Seams {
  return {
    store: (store, parts) => {
      const known = new WeakMap<Copy, Copy>();
      const changed = (copy: Copy) => {
        const handle = known.get(copy) ?? withChanges(copy, changeCopy(copy, store, parts));
        known.set(copy, handle);
        return handle;
      };
      return withChanges(store, {
        copies: () => store.copies().map(changed),
        openCopy: (...args) => changed(store.openCopy(...args)),
        ...changeStore(store, parts),
      });
    },
  };
}

/** A store whose lists are committed in another way. */
function overCommit(commit: (writer: ListWriter, ...args: Parameters<ListWriter["commit"]>) => void): Seams {
  return overStore(
    () => ({}),
    (copy) => ({
      beginList: () => {
        const writer = copy.beginList();
        const plain = writer.commit.bind(writer);
        return {
          add: (item) => writer.add(item),
          get itemCount() {
            return writer.itemCount;
          },
          get itemBytes() {
            return writer.itemBytes;
          },
          abort: () => writer.abort(),
          commit: (...args) => commit({ ...writer, commit: plain }, ...args),
        };
      },
    }),
  );
}

async function* mapped<T>(batches: AsyncIterable<readonly T[]>, keep: (one: T) => boolean): AsyncGenerator<T[]> {
  for await (const batch of batches) yield batch.filter(keep);
}

const neighbour = (identity: ScopeIdentity): ScopeIdentity => ({
  ...identity,
  labelSelector: { "app=x": "app=y", "app=y": "app=x" }[identity.labelSelector] ?? "",
});

/** All of them. */
export const plantedFaults: readonly PlantedFault[] = [
  {
    name: "an event is dropped at resume",
    breaks: ["P1", "P2", "P3"],
    seams: {
      source: (source) => {
        const seen = new Set<string>();
        return {
          hasCredential: (principal) => source.hasCredential(principal),
          list: (...args) => source.list(...args),
          watch: async (...args) => {
            const stream = await source.watch(...args);
            const id = JSON.stringify(args[0]);
            let isToDrop = seen.has(id);
            seen.add(id);
            const keep = ({ type }: WatchFrame) => {
              const isDropped = isToDrop && type !== "BOOKMARK" && type !== "ERROR";
              isToDrop = false;
              return !isDropped;
            };
            return { ...stream, batches: mapped(stream.batches, keep) };
          },
        };
      },
    },
  },
  {
    name: "the first page of a list is committed as the whole",
    breaks: ["P1", "P2", "P3"],
    edits: [{ file: "upstream-list.ts", text: `if (continueToken !== "") continue;`, by: "" }],
  },
  {
    name: "a selector's neighbour is served",
    breaks: ["P1", "P2", "P3"],
    seams: {
      source: (source) => ({
        hasCredential: (principal) => source.hasCredential(principal),
        list: (identity, ...rest) => source.list(neighbour(identity), ...rest),
        watch: (identity, ...rest) => source.watch(neighbour(identity), ...rest),
      }),
    },
  },
  {
    name: "the epoch is forgotten after a relist",
    breaks: ["P2"],
    edits: [
      {
        file: "history.ts",
        text: `if (compareResourceVersions(at, this.#toldBelow) < 0) return "relist";`,
        by: "",
      },
    ],
  },
  {
    name: "every deletion of a difference is told at the list's own moment",
    breaks: ["P2"],
    seed: 3771,
    edits: [{ file: "difference.ts", text: "momentBefore(next), true", by: "next, true" }],
  },
  {
    name: "a backlog is given half a second, however much comes",
    breaks: ["P2"],
    at: "kubelet",
    seed: 358,
    edits: [{ file: "follower.ts", text: "TRUTH_PATIENCE_MS = 3_000", by: "TRUTH_PATIENCE_MS = 500" }],
  },
  {
    name: "that a difference was told is forgotten at a restart",
    breaks: ["P2"],
    edits: [{ file: "history.ts", text: `listed?.isPartlyTold === true ? listed.epoch : ""`, by: `""` }],
  },
  {
    name: "an event below its start is handed down",
    breaks: ["P2"],
    edits: [
      {
        file: "scope-watcher.ts",
        text: "if (compareResourceVersions(momentOf(frame), station.above) <= 0) continue;",
        by: "",
      },
    ],
  },
  {
    name: "a resume begins at the list's resourceVersion",
    breaks: ["P6"],
    edits: [
      {
        file: "follower.ts",
        text: "history.nextFrom(this.parts.copy.listed!.resourceVersion)",
        by: "history.nextFrom(this.parts.copy.listed!.epoch)",
      },
    ],
  },
  {
    name: "what a 403 withholds answers all the same",
    breaks: ["P4"],
    seams: overStore(
      () => ({ forget: () => {} }),
      () => ({ drop: () => {}, isWithheld: false }),
    ),
  },
  {
    name: "a DELETED is lost in the difference of a relist",
    breaks: ["P2"],
    seams: overCommit((writer, state, onChange) =>
      writer.commit(state, (change) => change.type === "DELETED" || onChange(change)),
    ),
  },
  {
    name: "an unobserved scope counts as empty",
    breaks: ["P1", "P3", "P4"],
    seams: overStore(
      () => ({}),
      (copy, store, { link }) => ({
        snapshot: () => (link.isOnline() ? copy : emptied(store, copy)).snapshot(),
        get listed() {
          return (link.isOnline() ? copy : emptied(store, copy)).listed;
        },
      }),
    ),
  },
  {
    name: "a new uid under the same name is MODIFIED",
    breaks: ["P2"],
    seams: overCommit((writer, state, onChange) => {
      let held: Parameters<typeof onChange>[0] | undefined;
      writer.commit(state, (change) => {
        const before = held;
        held = undefined;
        if (before?.type === "DELETED" && change.type === "ADDED" && before.old.meta.name === change.item.meta.name)
          return onChange({ type: "MODIFIED", item: change.item });
        if (before !== undefined) onChange(before);
        if (change.type === "DELETED") held = change;
        else onChange(change);
      });
      if (held !== undefined) onChange(held);
    }),
  },
  {
    name: "rows are committed without their resourceVersion",
    breaks: ["P3"],
    disk: () =>
      new (class extends MemoryDisk {
        override save(...[id, row]: Parameters<MemoryDisk["save"]>): void {
          const before = this.committed.get(id)?.listed;
          const isList = row.listed?.epoch !== before?.epoch;
          super.save(id, isList || before === undefined ? row : { ...row, listed: before });
        }
      })(),
  },
  {
    name: "the head of an answer is taken for its word that a moment is known",
    breaks: ["P2"],
    seed: 1663,
    edits: [
      {
        file: "follower.ts",
        text: `feeds.forgotten(history.giveUpReplay(this.parts.copy.listed?.changedAt ?? ""));`,
        by: `history.giveUpReplay(this.parts.copy.listed!.changedAt);`,
      },
    ],
  },
  {
    name: "a history that went back is not acted upon",
    breaks: ["P2"],
    edits: [
      {
        file: "follower.ts",
        text: `this.#run?.attempt?.abort(new RolledBackError("The API server's resourceVersion went backwards"));`,
        by: "",
      },
    ],
  },
  {
    name: "watchers are closed at the cut",
    breaks: ["P6"],
    seams: {
      started: ({ link, scopes }) => {
        link.onChange((isOnline) => {
          if (!isOnline) for (const scope of [...scopes.all()]) scope.close();
        });
      },
    },
  },
  {
    name: "overlays are dropped at a restart",
    breaks: ["P2"],
    at: "kubelet",
    edits: [{ file: "node/overlays.ts", text: "this.#overlays.set(keyOf(overlay), overlay);", by: "" }],
  },
  {
    name: "edits are kept after the return",
    breaks: ["P2"],
    at: "kubelet",
    edits: [
      { file: "node/overlays.ts", text: "for (const scope of this.parts.scopes.all()) scope.endEdits();", by: "" },
      { file: "feeds.ts", text: "spoken(): void {\n    this.parts.edits.takeOff();", by: "spoken(): void {" },
      {
        file: "feeds.ts",
        text: "if (this.parts.edits.layer === undefined) this.parts.audience.endReturning();",
        by: "",
      },
    ],
  },
  {
    name: "the cloud's row is served where kubelet has written",
    breaks: ["P2"],
    at: "kubelet",
    edits: [
      { file: "layer.ts", text: "edited.meta.uid === item.meta.uid ? edited : item", by: "false ? edited : item" },
    ],
  },
  {
    name: "an edited item keeps the cloud's resourceVersion",
    breaks: ["P1", "P2"],
    at: "kubelet",
    edits: [
      {
        file: "node/overlays.ts",
        text: "laidOver(row, overlay, resourceVersion)",
        by: "laidOver(row, overlay, row.meta.resourceVersion)",
      },
    ],
  },
  {
    name: "kubelet's writes go up before the cloud's truth came down",
    breaks: ["P2"],
    at: "kubelet",
    edits: [
      {
        file: "node/reconnect.ts",
        text: `if (this.#stage === "all" || !link.isOnline()`,
        by: `if (link.isOnline() || !link.isOnline()`,
      },
    ],
  },
  {
    name: "a copy counts as caught up when its watch is answered",
    breaks: ["P2"],
    at: "kubelet",
    edits: [{ file: "follower.ts", text: "answeredInMs, hasCaughtUp: false", by: "answeredInMs, hasCaughtUp: true" }],
  },
  {
    name: "open watches are not told of an edit",
    breaks: ["P2", "answers"],
    at: "kubelet",
    edits: [
      {
        file: "layer.ts",
        text: `this.#version = item.meta.resourceVersion;\n    this.ring.append({ type: "MODIFIED", item, before });`,
        by: "this.#version = item.meta.resourceVersion;",
      },
    ],
  },
  {
    name: "endpoints follow the address and not the readiness",
    breaks: ["P2"],
    at: "kubelet",
    edits: [{ file: "node/overlays.ts", text: "isReady: isReady(status) }", by: "isReady: true }" }],
  },
  {
    name: "a finished pod is forgotten at the return",
    breaks: ["P2"],
    at: "kubelet",
    edits: [{ file: "node/overlays.ts", text: "if (isTerminal(status) && this.#isNews(overlay))", by: "if (false)" }],
  },
  {
    name: "an overlay is laid over another UID of the same name",
    breaks: ["P1", "P2"],
    at: "kubelet",
    edits: [
      { file: "node/overlays.ts", text: "row === undefined || row.meta.uid !== overlay.uid", by: "row === undefined" },
    ],
  },
  {
    name: "kubelet's labels and annotations are laid over another's older copy",
    breaks: ["P1"],
    at: "kubelet",
    edits: [
      {
        file: "node/overlays.ts",
        text: `metadataChanges(known.metadata, before["metadata"] as Fields, after["metadata"] as Fields)`,
        by: `{ annotations: (after["metadata"] as Fields)["annotations"] ?? {} }`,
      },
    ],
  },
  {
    name: "an agent's change is dropped at a restart",
    breaks: ["P2", "answers"],
    at: "kubelet",
    edits: [
      {
        file: "node/overlay.ts",
        text: "return overlay as Overlay;",
        by: "return { ...overlay, changes: [] } as Overlay;",
      },
    ],
  },
  {
    name: "an agent's change goes up over somebody else's",
    breaks: ["P2", "answers"],
    at: "kubelet",
    edits: [
      {
        file: "node/agent-return.ts",
        text: "else if (change.was.some((was) => saysSame(held, was))) todo",
        by: "else if (true) todo",
      },
    ],
  },
  {
    name: "an agent's change is sent again though it had gone up",
    breaks: ["answers"],
    at: "kubelet",
    edits: [
      { file: "node/agent-return.ts", text: "if (saysSame(held, change.now)) there", by: "if (false) there" },
      {
        file: "node/agent-return.ts",
        text: "else if (change.was.some((was) => saysSame(held, was))) todo",
        by: "else if (true) todo",
      },
      { file: "node/agent-return.ts", text: "        this.parts.overlays.settled(group, todo);\n", by: "" },
    ],
  },
  {
    name: "an agent's change is forgotten at the return",
    breaks: ["answers"],
    at: "kubelet",
    edits: [
      {
        file: "node/overlays.ts",
        text: "const { status, metadata: _, isRemembered: __, ...others } = overlay;",
        by: "const { status, metadata: _, isRemembered: __, ...rest } = overlay; const others = { ...rest, changes: [] };",
      },
      { file: "node/reconnect.ts", text: "agentsReturn?.(signal)", by: "Promise.resolve()" },
    ],
  },
  {
    name: "a patch takes the cloud's own conditions away",
    breaks: ["P1"],
    at: "kubelet",
    edits: [
      {
        file: "node/status-patch.ts",
        text: "type === MERGE ? jsonMerge(before, changes)",
        by: "type !== STRATEGIC || true ? jsonMerge(before, changes)",
      },
    ],
  },
  {
    name: "a foreign answer is taken for the API server's",
    breaks: ["P1", "P2", "P4", "P6", "answers"],
    at: "way",
    edits: [
      {
        file: "uplink/upstream-answer.ts",
        text: `if (word !== undefined && word !== "foreign") return word;`,
        by: `if (word !== undefined) return word === "foreign" ? (status < 400 ? "answer" : "refusal") : word;`,
      },
      {
        file: "uplink/upstream-answer.ts",
        text: `if (word === "foreign") void reader.cancel().catch(() => {});`,
        by: "",
      },
    ],
  },
  {
    name: "a refusal of seconds takes rows away",
    breaks: ["P1"],
    at: "way",
    edits: [
      { file: "callers/refusal-looks.ts", text: "STAND_MS = 300_000", by: "STAND_MS = 1_000" },
      { file: "callers/refusal-looks.ts", text: "READY_MS = 60_000", by: "READY_MS = 0" },
    ],
  },
  {
    name: "a stranger counts as admitted",
    breaks: ["P4"],
    at: "way",
    edits: [
      {
        file: "callers/gate.ts",
        text: "const isStranger = !caller.isVouched && !this.#admitted.has(caller.principal);",
        by: "const isStranger = false;",
      },
    ],
  },
  {
    name: "a write's older resourceVersion counts as history that went back",
    breaks: ["P6"],
    at: "way",
    edits: [
      {
        file: "front/lessons.ts",
        text: "const written = writes.answered(",
        by: `const { group, resource } = info;
      const told = /"resourceVersion":"([0-9]+)"/.exec(Buffer.from(body).toString("utf8"))?.[1] ?? "";
      const { scopes } = this.parts;
      if (told !== "") scopes.noticeResourceVersion(group, resource, told, scopes.newestHeld(group, resource));
      const written = writes.answered(`,
      },
    ],
  },
  {
    name: "a list that came short counts as whole",
    breaks: ["P1", "P2", "P3"],
    at: "way",
    edits: [
      {
        file: "list-adoption.ts",
        text: "for (const item of this.#reader.push(chunk)) this.#writer.add(item);",
        by: `(this as any).text = ((this as any).text ?? "") + Buffer.from(chunk).toString("utf8");
      for (const item of this.#reader.push(chunk)) this.#writer.add(item);`,
      },
      {
        file: "list-adoption.ts",
        text: "this.finish(this.#contentType, reader.end(), writer);",
        by: `const soFar = () => {
        const [, kind, at] = /"kind":"([A-Za-z]+)".*?"resourceVersion":"([0-9]+)"/.exec((this as any).text)!;
        return { shape: { listKind: kind!, apiVersion: "v1", isBare: true }, resourceVersion: at!, continueToken: "" };
      };
      let head;
      try {
        head = reader.end();
      } catch {
        head = soFar();
      }
      this.finish(this.#contentType, head, writer);`,
      },
    ],
  },
  {
    name: "a DELETED of a name's old object goes to whoever was shown the new one",
    breaks: ["P2"],
    at: "way",
    // One world in several hundred makes a name anew just then.
    seed: 1932,
    edits: [
      {
        file: "shown-ahead.ts",
        text: `if (frame.type === "DELETED" && shown.uid === undefined) return true;`,
        by: `if (frame.type === "DELETED") return true;`,
      },
    ],
  },
];

/** A copy without a list gets an empty one that nobody sent. */
function emptied(store: Store, copy: Copy): Copy {
  if (copy.isDropped || copy.listed !== undefined) return copy;
  const newest = Math.max(1, ...store.copies().map(({ listed }) => Number(listed?.resourceVersion ?? 1)));
  const kind = { pods: "Pod", configmaps: "ConfigMap", nodes: "Node" }[copy.identity.resource]!;
  const shape = { listKind: `${kind}List`, apiVersion: "v1", isBare: true };
  const state = { shape, contentType: "application/json", resourceVersion: String(newest), nowMs: copy.lastUsedMs };
  copy.beginList().commit(state, () => {});
  return copy;
}
