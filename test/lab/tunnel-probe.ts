/**
 * Asks a kubelet as the API server does, by its address, for a test that cannot
 * enter the API server's network itself.
 *
 *   bun tunnel-probe.ts first HOST PORT PATH CERT KEY COUNT     times until the first byte of an answer, ms, on one connection
 *   bun tunnel-probe.ts many HOST PORT PATH CERT KEY COUNT      so many connections, fifty at once; how many were answered
 *   bun tunnel-probe.ts trip HOST PORT                          times until a TCP connection stands, ms
 *   bun tunnel-probe.ts sink HOST PORT                          takes one connection; bytes and ms from first to last
 *   bun tunnel-probe.ts page HOST PORT PATH                     gets a page by HTTP; bytes and ms from first to last
 *   bun tunnel-probe.ts source HOST PORT BYTES                  dials and sends
 */
import { readFileSync } from "node:fs";
import { Agent, get } from "node:https";
import { connect, createServer } from "node:net";

const [what = "", host = "", port = "", path = "", cert = "", key = "", count = "1"] = process.argv.slice(2);

/** @returns ms until the first byte of the answer's body. */
function ask(agent: Agent): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const startedMs = performance.now();
  // Kubelet's certificate is another test's.
  const pair = { cert: readFileSync(cert), key: readFileSync(key), rejectUnauthorized: false };
  get({ host, port, path, agent, ...pair }, (answer) => {
    let firstMs = 0;
    answer.on("data", () => (firstMs ||= performance.now() - startedMs));
    answer.on("end", () =>
      answer.statusCode === 200 ? resolve(firstMs) : reject(new Error(`status ${answer.statusCode}`)),
    );
  }).on("error", reject);
  return promise;
}

async function trip(): Promise<number> {
  const startedMs = performance.now();
  const socket = connect(Number(port), host);
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  const tookMs = performance.now() - startedMs;
  socket.destroy();
  return tookMs;
}

const runs: Readonly<Record<string, () => Promise<unknown>>> = {
  async first() {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const times: number[] = [];
    for (let i = 0; i < Number(count); i++) times.push(await ask(agent));
    agent.destroy();
    return times;
  },
  async many() {
    let answered = 0;
    const one = async () => {
      for (let i = 0; i < Number(count) / 50; i++) {
        const agent = new Agent({ keepAlive: false });
        await ask(agent).then(
          () => answered++,
          () => {},
        );
      }
    };
    await Promise.all(Array.from({ length: 50 }, one));
    return answered;
  },
  async trip() {
    const times: number[] = [];
    for (let i = 0; i < 5; i++) times.push(await trip());
    return times;
  },
  async sink() {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    createServer((socket) => {
      let [bytes, startedMs] = [0, 0];
      socket.on("data", (chunk: Buffer) => {
        startedMs ||= performance.now();
        bytes += chunk.length;
      });
      socket.on("end", () => resolve({ bytes, ms: performance.now() - startedMs }));
    }).listen(Number(port), host);
    return await promise;
  },
  async page() {
    const answer = await fetch(`http://${host}:${port}${path}`);
    let [bytes, startedMs] = [0, 0];
    for await (const chunk of answer.body!) {
      startedMs ||= performance.now();
      bytes += chunk.length;
    }
    return { bytes, ms: performance.now() - startedMs };
  },
  async source() {
    const socket = connect(Number(port), host);
    const chunk = Buffer.alloc(64 * 1024);
    for (let left = Number(path); left > 0; left -= chunk.length)
      if (!socket.write(chunk)) await new Promise((resolve) => socket.once("drain", resolve));
    await new Promise<void>((resolve) => socket.end(resolve));
    return "sent";
  },
};
console.log(JSON.stringify(await runs[what]!()));
process.exit(0);
