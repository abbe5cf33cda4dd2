/**
 * The contract, held against the stand-in that the other tests rely on.
 */

import { afterAll } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { contractSuite } from "./suite.ts";

let server: ApiServer | undefined;
afterAll(() => server?.stop());

contractSuite("the stand-in", async () => {
  server = await startApiServer({ allowsAnonymous: true, authorize: (user) => user.name !== "system:anonymous" });
  return { url: server.url, ca: server.cluster.ca, ...server.cluster.clientCertificate("admin", ["system:masters"]) };
});
