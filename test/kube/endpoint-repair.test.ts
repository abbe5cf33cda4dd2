import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MalformedError } from "../../src/kube/codec.ts";
import { mentionsAny, repairEndpoints, type LocalPod } from "../../src/kube/endpoint-repair.ts";
import { fieldsOf, fieldText, message, text, varint } from "../../src/kube/protobuf-wire.ts";

interface Endpoint {
  readonly uid: string;
  readonly address: string;
  readonly ready?: boolean;
  readonly serving?: boolean;
  readonly terminating?: boolean;
}

const podsOf = (...pods: LocalPod[]) => new Map(pods.map((pod) => [pod.uid, pod]));
const UNKNOWN = text(99, "a field of tomorrow");

function sliceJson(endpoints: readonly Endpoint[], addressType = "IPv4"): Buffer {
  return Buffer.from(
    JSON.stringify({
      metadata: { name: "web", namespace: "shop", resourceVersion: "7" },
      endpoints: endpoints.map(({ uid, address, ready, serving, terminating = false }) => ({
        addresses: [address],
        conditions: { ready, serving, terminating },
        targetRef: { kind: "Pod", name: "web-0", uid },
        nodeName: "edge1",
      })),
      addressType,
      tomorrow: { kept: true },
    }),
  );
}

function sliceProtobuf(endpoints: readonly Endpoint[], addressType = "IPv4"): Buffer {
  return Buffer.concat([
    message(1, [text(1, "web"), text(3, "shop"), text(6, "7")]),
    ...endpoints.map(({ uid, address, ready, serving, terminating = false }) =>
      message(2, [
        text(1, address),
        message(2, [
          ...(ready === undefined ? [] : [varint(1, ready ? 1 : 0)]),
          ...(serving === undefined ? [] : [varint(2, serving ? 1 : 0)]),
          varint(3, terminating ? 1 : 0),
        ]),
        message(4, [text(1, "Pod"), text(3, "web-0"), text(4, uid)]),
        text(6, "edge1"),
        UNKNOWN,
      ]),
    ),
    text(4, addressType),
    UNKNOWN,
  ]);
}

/** Both formats read back as "uid address ready serving". */
function read(format: "json" | "protobuf", bytes: Uint8Array): string[] {
  if (format === "json")
    return JSON.parse(Buffer.from(bytes).toString()).endpoints.map(
      ({ addresses, conditions, targetRef }: any) =>
        `${targetRef.uid} ${addresses.join("+")} ${conditions.ready} ${conditions.serving}`,
    );
  return [...fieldsOf(bytes)]
    .filter(({ number }) => number === 2)
    .map((endpoint) => {
      const addresses: string[] = [];
      const conditions: Record<number, number> = {};
      let uid = "";
      for (const field of fieldsOf(bytes, endpoint.start, endpoint.end)) {
        if (field.number === 1) addresses.push(fieldText(bytes, field));
        if (field.number === 2)
          for (const one of fieldsOf(bytes, field.start, field.end)) conditions[one.number] = one.value;
        if (field.number === 4)
          for (const one of fieldsOf(bytes, field.start, field.end)) if (one.number === 4) uid = fieldText(bytes, one);
      }
      const flag = (number: number) => (conditions[number] === undefined ? undefined : conditions[number] === 1);
      return `${uid} ${addresses.join("+")} ${flag(1)} ${flag(2)}`;
    });
}

for (const [format, slice] of [
  ["json", sliceJson],
  ["protobuf", sliceProtobuf],
] as const) {
  describe(`an EndpointSlice in ${format}`, () => {
    const repair = (bytes: Uint8Array, ...pods: LocalPod[]) =>
      repairEndpoints("endpointslices", format, bytes, podsOf(...pods));

    test("gets a local pod's address of its own family and its readiness; others keep theirs", () => {
      const bytes = slice([
        { uid: "mine", address: "10.0.0.1", ready: true, serving: true },
        { uid: "far", address: "10.0.9.9", ready: true, serving: true },
      ]);
      const moved = repair(bytes, { uid: "mine", ips: ["fd00::7", "10.0.0.7"], isReady: true })!;

      expect(read(format, moved)).toEqual(["mine 10.0.0.7 true true", "far 10.0.9.9 true true"]);
      const stopped = repair(bytes, { uid: "mine", ips: ["10.0.0.1"], isReady: false })!;
      expect(read(format, stopped)[0]).toBe("mine 10.0.0.1 false false");
    });

    test("is left alone when nothing differs, for another family of names, and for unknown pods", () => {
      const same = { uid: "mine", address: "10.0.0.1", ready: true, serving: true };
      expect(repair(slice([same]), { uid: "mine", ips: ["10.0.0.1"], isReady: true })).toBeUndefined();
      expect(repair(slice([same]), { uid: "other", ips: ["10.0.0.3"], isReady: true })).toBeUndefined();
      expect(repair(slice([same], "FQDN"), { uid: "mine", ips: ["10.0.0.3"], isReady: true })).toBeUndefined();
    });

    test("one that is terminating is served on and never ready again, unless it was published as ready", () => {
      const deleted = { uid: "mine", address: "10.0.0.1", ready: false, serving: false, terminating: true };
      const pod = { uid: "mine", ips: ["10.0.0.7"], isReady: true };
      const moved = repair(slice([deleted]), pod)!;
      expect(read(format, moved)).toEqual(["mine 10.0.0.7 false true"]);
      expect(repair(moved, pod)).toBeUndefined();
      const published = repair(slice([{ ...deleted, ready: true }]), { ...pod, isReady: false })!;
      expect(read(format, published)).toEqual(["mine 10.0.0.7 true false"]);
    });

    test("a pod without an address is not ready; one that is published while not ready stays published", () => {
      const gone = repair(slice([{ uid: "mine", address: "10.0.0.1", ready: true, serving: true }]), {
        uid: "mine",
        ips: [],
        isReady: true,
      })!;
      expect(read(format, gone)).toEqual(["mine 10.0.0.1 false false"]);
      const published = repair(slice([{ uid: "mine", address: "10.0.0.1", ready: true, serving: false }]), {
        uid: "mine",
        ips: ["10.0.0.2"],
        isReady: false,
      })!;
      expect(read(format, published)).toEqual(["mine 10.0.0.2 true false"]);
    });

    test("keeps fields it does not know", () => {
      const bytes = slice([{ uid: "mine", address: "10.0.0.1", ready: true, serving: true }]);
      const made = Buffer.from(repair(bytes, { uid: "mine", ips: ["10.0.0.2"], isReady: true })!);
      if (format === "json") expect(JSON.parse(made.toString()).tomorrow).toEqual({ kept: true });
      else expect(made.toString("latin1").split("a field of tomorrow")).toHaveLength(3);
      expect(made.includes("resourceVersion") || format === "protobuf").toBe(true);
    });

    test("random slices: a second repair changes nothing, foreign endpoints stay", () => {
      const endpoints = fc.uniqueArray(
        fc.record({
          uid: fc.constantFrom("a", "b", "c", "d", "e"),
          address: fc.ipV4(),
          ready: fc.option(fc.boolean(), { nil: undefined }),
          serving: fc.option(fc.boolean(), { nil: undefined }),
        }),
        { selector: ({ uid }) => uid },
      );
      const pods = fc.uniqueArray(
        fc.record({
          uid: fc.constantFrom("a", "b", "c"),
          ips: fc.array(fc.ipV4(), { maxLength: 2 }),
          isReady: fc.boolean(),
        }),
        { selector: ({ uid }) => uid },
      );
      fc.assert(
        fc.property(endpoints, pods, (before, local) => {
          const bytes = slice(before as Endpoint[]);
          const after = repair(bytes, ...local);
          const foreign = (lines: string[]) =>
            lines.filter((line) => !local.some(({ uid }) => line.startsWith(`${uid} `)));
          expect(foreign(read(format, after ?? bytes))).toEqual(foreign(read(format, bytes)));
          if (after === undefined) return;
          expect(after).not.toEqual(new Uint8Array(bytes));
          expect(repair(after, ...local)).toBeUndefined();
        }),
        { numRuns: 300 },
      );
    });
  });
}

test("an EndpointSlice in JSON keeps every byte but the address and the readiness", () => {
  const whole =
    '{"metadata":{"name":"web","generation":9007199254740993},"endpoints":[{"addresses":["10.0.0.1"],' +
    '"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"kind":"Pod","uid":"mine"},"weight": 1.0},' +
    '{"addresses":["10.0.9.9"],"zone":"\\u003ca"}],"addressType":"IPv4","ports":[{"port":1e2,"port":80}]}';
  const pods = podsOf({ uid: "mine", ips: ["10.0.0.7"], isReady: false });
  const made = repairEndpoints("endpointslices", "json", Buffer.from(whole), pods)!;
  expect(Buffer.from(made).toString()).toBe(
    whole.replace("10.0.0.1", "10.0.0.7").replace('"ready":true,"serving":true', '"ready":false,"serving":false'),
  );
});

describe("Endpoints", () => {
  const uids = podsOf({ uid: "a", ips: ["10.0.0.7"], isReady: true }, { uid: "b", ips: ["10.0.0.8"], isReady: false });

  test("in JSON: addresses move between ready and not ready as the pods do", () => {
    const target = (uid: string) => ({ kind: "Pod", uid });
    const bytes = Buffer.from(
      JSON.stringify({
        metadata: { name: "web" },
        subsets: [
          {
            addresses: [{ ip: "10.0.0.2", targetRef: target("b") }, { ip: "10.9.9.9" }],
            notReadyAddresses: [{ ip: "10.0.0.1", targetRef: target("a") }],
            ports: [{ port: 80 }],
          },
        ],
      }),
    );
    const made = JSON.parse(Buffer.from(repairEndpoints("endpoints", "json", bytes, uids)!).toString());
    expect(made.subsets).toEqual([
      {
        addresses: [{ ip: "10.9.9.9" }, { ip: "10.0.0.7", targetRef: target("a") }],
        notReadyAddresses: [{ ip: "10.0.0.8", targetRef: target("b") }],
        ports: [{ port: 80 }],
      },
    ]);
  });

  test("in protobuf: the same", () => {
    const address = (number: number, ip: string, uid: string) =>
      message(number, [text(1, ip), message(2, [text(1, "Pod"), text(4, uid)]), text(4, "edge1")]);
    const ports = message(3, [varint(2, 80)]);
    const bytes = Buffer.concat([
      message(1, [text(1, "web")]),
      message(2, [address(1, "10.0.0.2", "b"), address(1, "10.9.9.9", "far"), address(2, "10.0.0.1", "a"), ports]),
    ]);
    const expected = Buffer.concat([
      message(1, [text(1, "web")]),
      message(2, [address(1, "10.9.9.9", "far"), address(1, "10.0.0.7", "a"), address(2, "10.0.0.8", "b"), ports]),
    ]);
    expect(Buffer.from(repairEndpoints("endpoints", "protobuf", bytes, uids)!).equals(expected)).toBe(true);
  });

  test("bytes that are cut short are refused, and never guessed at", () => {
    const whole = sliceProtobuf([{ uid: "a", address: "10.0.0.1", ready: true, serving: true }]);
    for (let length = 1; length < whole.length; length++) {
      try {
        repairEndpoints("endpointslices", "protobuf", whole.subarray(0, length), uids);
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedError);
      }
    }
    expect(() => repairEndpoints("endpoints", "json", Buffer.from("{"), uids)).toThrow(MalformedError);
  });

  test("a look for UIDs is no parse", () => {
    expect(mentionsAny(Buffer.from("xx-a-yy"), ["-a-"])).toBe(true);
    expect(mentionsAny(Buffer.from("xx-a-yy"), ["", "-b-"])).toBe(false);
  });
});
