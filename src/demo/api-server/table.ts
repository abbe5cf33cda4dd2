/**
 * What `kubectl get` prints: columns and cells of a Table.
 */

import type { Resource } from "./resources.ts";
import { child, isObject, textAt, type Json, type JsonObject } from "./schema.ts";

/** The beginning of what the real server says of metadata.creationTimestamp. */
const CREATED =
  "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations.";

const column = (name: string, type = "string", format = "", priority = 0): JsonObject => ({
  name,
  type,
  format,
  description: name === "Age" ? CREATED : `${name} of the object`,
  priority,
});

/** The column definitions of a resource's Table. */
export function columnsOf({ resource, isCustom }: Resource): JsonObject[] {
  const name = column("Name", "string", "name");
  const age = isCustom ? column("Age", "date") : column("Age");
  if (resource === "configmaps") return [name, column("Data"), age];
  if (resource === "pods") {
    const wide = ["IP", "Node", "Nominated Node", "Readiness Gates"].map((title) => column(title, "string", "", 1));
    return [name, column("Ready"), column("Status"), column("Restarts"), age, ...wide];
  }
  if (resource === "nodes" || resource === "namespaces") return [name, column("Status"), age];
  return [name, age];
}

/** The cells of one object, in the order of the columns. */
export function rowOf({ resource, isCustom }: Resource, object: JsonObject): Json[] {
  const created = textAt(object, "metadata.creationTimestamp");
  const name = textAt(object, "metadata.name");
  const age = created === "" && isCustom ? null : ageOf(created);
  if (resource === "configmaps")
    return [name, Object.keys(child(object, "data")).length + Object.keys(child(object, "binaryData")).length, age];
  if (resource === "pods") return podRow(object, name, age);
  if (resource === "nodes") return [name, isReady(object) ? "Ready" : "NotReady", age];
  if (resource === "namespaces") return [name, textAt(object, "status.phase"), age];
  return [name, age];
}

function podRow(pod: JsonObject, name: string, age: Json): Json[] {
  const containers = child(pod, "spec")["containers"];
  const statuses = child(pod, "status")["containerStatuses"];
  const reported = Array.isArray(statuses) ? statuses.filter(isObject) : [];
  const ready = `${reported.filter((status) => status["ready"] === true).length}/${Array.isArray(containers) ? containers.length : 0}`;
  const restarts = reported.reduce((sum, status) => sum + Number(status["restartCount"] ?? 0), 0);
  const state = textAt(pod, "metadata.deletionTimestamp") ? "Terminating" : textAt(pod, "status.phase");
  const orNone = (text: string) => text || "<none>";
  return [
    name,
    ready,
    state,
    String(restarts),
    age,
    orNone(textAt(pod, "status.podIP")),
    orNone(textAt(pod, "spec.nodeName")),
    "<none>",
    "<none>",
  ];
}

function isReady(node: JsonObject): boolean {
  const conditions = child(node, "status")["conditions"];
  return (
    Array.isArray(conditions) &&
    conditions.some((one) => textAt(one, "type") === "Ready" && textAt(one, "status") === "True")
  );
}

function ageOf(created: string): string {
  if (created === "") return "<unknown>";
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(created)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}
