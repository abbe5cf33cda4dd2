import { expect, test } from "bun:test";
import { join } from "node:path";
import { EnvironmentError, forgetProxies, refuseDangerous } from "../../src/base/environment.ts";

test.each([
  [{ NODE_TLS_REJECT_UNAUTHORIZED: "0" }, "NODE_TLS_REJECT_UNAUTHORIZED"],
  [{ BUN_CONFIG_VERBOSE_FETCH: "curl" }, "BUN_CONFIG_VERBOSE_FETCH"],
  [{ BUN_CONFIG_VERBOSE_FETCH: "1" }, "BUN_CONFIG_VERBOSE_FETCH"],
])("%p ends the start with the variable's name", (env, name) => {
  expect(() => refuseDangerous(env)).toThrow(EnvironmentError);
  expect(() => refuseDangerous(env)).toThrow(name);
});

test.each([
  {},
  { NODE_TLS_REJECT_UNAUTHORIZED: "1" },
  { NODE_TLS_REJECT_UNAUTHORIZED: "" },
  { BUN_CONFIG_VERBOSE_FETCH: "" },
  { BUN_CONFIG_VERBOSE_FETCH: "0" },
  { HTTPS_PROXY: "http://p:1" },
])("%p does no harm", (env) => {
  expect(() => refuseDangerous(env)).not.toThrow();
});

test("proxies are taken out in both spellings, and nothing else", () => {
  const env: Record<string, string> = {
    HTTPS_PROXY: "a",
    http_proxy: "b",
    no_proxy: "c",
    ALL_PROXY: "d",
    PATH: "/bin",
  };
  forgetProxies(env);
  expect(env).toEqual({ PATH: "/bin" });
});

test("no memory of the process goes into a core dump", () => {
  const file = JSON.stringify(join(import.meta.dir, "..", "..", "src", "base", "environment.ts"));
  const script = `import { keepMemoryOutOfCores } from ${file};
    console.log(keepMemoryOutOfCores(), (await Bun.file("/proc/self/coredump_filter").text()).trim());`;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", script]);
  expect(stdout.toString().trim()).toBe("true 00000000");
});
