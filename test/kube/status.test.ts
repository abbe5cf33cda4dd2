import { expect, test } from "bun:test";
import { statusBody, statusReason } from "../../src/kube/status.ts";
import { textOf } from "./chunks.ts";

const notFound = {
  code: 404,
  reason: "NotFound",
  message: 'pods "web-0" not found',
  details: { name: "web-0", kind: "pods" },
};

test("a Status in JSON is what the API server writes", () => {
  expect(textOf(statusBody(notFound, "json"))).toBe(
    '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \\"web-0\\" not found","reason":"NotFound","details":{"name":"web-0","kind":"pods"},"code":404}\n',
  );
  const held = {
    code: 504,
    reason: "Timeout",
    message: "later",
    causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
    retryAfterSeconds: 1,
  };
  expect(JSON.parse(textOf(statusBody(held, "json"))).details).toEqual({
    causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
    retryAfterSeconds: 1,
  });
});

test("a Status in protobuf has the published field numbers", () => {
  const golden = [
    "6b387300", // k8s\0
    "0a0c",
    "0a027631",
    "1206537461747573", // TypeMeta: v1, Status
    "123a", // raw
    "0a06",
    "0a00",
    "1200",
    "1a00", // ListMeta
    "12074661696c757265", // Failure
    "1a04676f6e65", // message "gone"
    "22084e6f74466f756e64", // reason NotFound
    "2a14",
    "0a05",
    "7765622d30",
    "1200",
    "1a04706f6473",
    "2800",
    "3201",
    "75", // details, retryAfterSeconds 0, uid "u"
    "309403", // code 404
    "1a002200",
  ].join("");
  const body = statusBody(
    { code: 404, reason: "NotFound", message: "gone", details: { name: "web-0", kind: "pods", uid: "u" } },
    "protobuf",
  );
  expect(Buffer.from(body).toString("hex")).toBe(golden);
});

test("every code has the API server's reason", () => {
  const reasons = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    502: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
    418: "",
  };
  for (const [code, reason] of Object.entries(reasons)) expect(statusReason(Number(code))).toBe(reason);
});
