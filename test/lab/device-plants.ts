/**
 * Faults for the device's judge: what a cut must never leave, done by hand to
 * what one has left.
 */
import { Database } from "bun:sqlite";
import { generateKeyPairSync } from "node:crypto";
import { copyFileSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** One fault. */
export interface Plant {
  readonly name: string;
  /** Does it to a folder of remains. */
  readonly plant: (folder: string) => void;
  /** What the judge must say. */
  readonly sees: RegExp;
}

/** All of them. @param earlier remains of the same device, from before the value that is held to be durable. */
export function plantsIn(earlier: string): Plant[] {
  return [
    { name: "two rows have changed places", plant: swapRows, sees: /P3: \d+ rows checked, [1-9]\d* damaged/ },
    { name: "a row is gone", plant: dropRow, sees: /P3: / },
    {
      name: "commits that were never synced are gone",
      plant: (folder) => rollBack(folder, earlier),
      sees: /P3: .* is older than what was durable/,
    },
    { name: "the journal is half", plant: halveJournal, sees: /P5: the journal cannot be read/ },
    { name: "the certificate is another key's", plant: otherKey, sees: /P5: kubelet's certificate and key do not fit/ },
    {
      name: "the local CA is new",
      plant: (folder) => writeFileSync(join(folder, "holdfast/pki/local-ca.key"), newKey()),
      sees: /P5: the device is another/,
    },
    {
      name: "first boot would join anew",
      plant: (folder) => rmSync(join(folder, "holdfast/first-boot.done")),
      sees: /P5: first boot is not done/,
    },
  ];
}

function swapRows(folder: string): void {
  within(folder, (database) => {
    const rows = database.query("SELECT id, value FROM objects ORDER BY id LIMIT 2").all() as {
      id: number;
      value: Uint8Array;
    }[];
    const [one, two] = rows;
    if (one === undefined || two === undefined) throw new Error("fewer than two rows are kept");
    database.query("UPDATE objects SET value = ? WHERE id = ?").run(two.value, one.id);
    database.query("UPDATE objects SET value = ? WHERE id = ?").run(one.value, two.id);
  });
}

function dropRow(folder: string): void {
  within(folder, (database) => database.run("DELETE FROM objects WHERE key LIKE '%churn%'"));
}

function within(folder: string, act: (database: Database) => void): void {
  const database = new Database(join(folder, "holdfast/cache.db"), { readwrite: true });
  act(database);
  database.close();
}

function rollBack(folder: string, earlier: string): void {
  const files = (place: string) => readdirSync(join(place, "holdfast")).filter((name) => name.startsWith("cache.db"));
  for (const name of files(folder)) rmSync(join(folder, "holdfast", name));
  for (const name of files(earlier)) copyFileSync(join(earlier, "holdfast", name), join(folder, "holdfast", name));
}

function halveJournal(folder: string): void {
  const path = join(folder, "holdfast/adopt.json");
  const text = readFileSync(path);
  writeFileSync(path, text.subarray(0, text.length / 2));
}

function otherKey(folder: string): void {
  const path = join(folder, "pki/kubelet-client-current.pem");
  const [certificate = ""] =
    /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n/.exec(readFileSync(path, "utf8")) ?? [];
  rmSync(path);
  writeFileSync(path, certificate + newKey());
}

function newKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ type: "pkcs8", format: "pem" }) as string;
}
