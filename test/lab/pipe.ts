/**
 * A place in the lab: takes TCP connections and pipes each to one target, byte
 * for byte. A program of its own; one line for each connection.
 *
 *   bun pipe.ts HOST PORT TARGET_HOST TARGET_PORT
 */
import { connect, createServer } from "node:net";

const [host, port, targetHost, targetPort] = process.argv.slice(2);
let count = 0;
createServer((client) => {
  const target = connect(Number(targetPort), targetHost!);
  const end = () => {
    client.destroy();
    target.destroy();
  };
  for (const one of [client, target]) one.once("error", end).once("close", end);
  client.pipe(target).pipe(client);
  console.log(`connection ${++count}`);
}).listen(Number(port), host!, () => console.log("ready"));
