/**
 * Asks an API server what Holdfast must tell from a stranger's answer, and
 * prints whose word each answer is. Runs at the edge; see whose-word.test.ts.
 */
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { parse } from "yaml";
import { askedForm, whoseWord } from "../../src/kube/whose-word.ts";

const [kubeconfig = "", token = "", asked = "[]"] = process.argv.slice(2);
const { clusters, users } = parse(readFileSync(kubeconfig, "utf8"));
const read = (from: Record<string, string>, field: string) =>
  from[`${field}-data`] === undefined ? readFileSync(from[field]!) : Buffer.from(from[`${field}-data`]!, "base64");
const { cluster } = clusters[0];
const { user } = users[0];
const admin = { cert: read(user, "client-certificate"), key: read(user, "client-key") };

interface Asked {
  readonly method: string;
  readonly target: string;
  readonly accept: string;
  readonly as: "admin" | "token" | "nobody";
  readonly body?: string;
}

function ask({ method, target, accept, as, body }: Asked): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const bearer = as === "token" ? token : as === "nobody" ? "made-up" : undefined;
  const outgoing = request(
    cluster.server + target,
    {
      method,
      ca: read(cluster, "certificate-authority"),
      ...(as === "admin" ? admin : {}),
      headers: {
        Accept: accept,
        ...(bearer === undefined ? {} : { Authorization: `Bearer ${bearer}` }),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
    },
    (incoming) => {
      const parts: Buffer[] = [];
      const judged = () => {
        const header = (name: string) => incoming.headers[name] as string | undefined;
        const start = Buffer.concat(parts);
        const word = whoseWord(askedForm(method, target), {
          status: incoming.statusCode!,
          header,
          start,
          isWhole: true,
        });
        resolve(`${incoming.statusCode} ${word}`);
        incoming.destroy();
      };
      incoming.on("data", (part: Buffer) => parts.push(part));
      incoming.on("end", judged);
      if (target.includes("watch=true") && incoming.statusCode === 200) judged();
    },
  );
  outgoing.on("error", reject);
  outgoing.end(body);
  return promise;
}

const answers: string[] = [];
for (const one of JSON.parse(asked) as Asked[]) answers.push(await ask(one));
process.stdout.write(JSON.stringify(answers));
