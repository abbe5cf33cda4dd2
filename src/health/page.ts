/**
 * The technician's page: off unless configured, read-only, behind a PIN.
 *
 *   GET  /      the form, or the page to who has a session
 *   POST /pin   a session for the right PIN; five tries a minute, of everybody together
 *
 * Who may be asked by which name is a list (a page of another site must not
 * reach it by a name that it lets point here), a POST must come from the page
 * itself, and the policy allows no script and nothing from elsewhere.
 */

import { Hono } from "hono";
import { pageOf, pinForm, STYLE, type PageFacts } from "./page-view.ts";

/** What it is served from. */
export interface PageOptions {
  /** Names and addresses by which it may be asked, without ports. */
  readonly hosts: readonly string[];
  readonly facts: () => Promise<PageFacts>;
  readonly isPin: (pin: string) => boolean;
  readonly nowMs: () => number;
}

const SESSION_MS = 8 * 3_600_000;
const MAX_SESSIONS = 16;
const TRIES = { most: 5, perMs: 60_000 } as const;
const MAX_FORM_BYTES = 256;
const COOKIE = "__Host-holdfast";
const STYLE_HASH = `sha256-${new Bun.CryptoHasher("sha256").update(STYLE).digest("base64")}`;
const HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": `default-src 'none'; style-src '${STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'`,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-store",
};

/** Opens it over TLS. @returns undefined where the address cannot be listened on. */
export function servePage(
  {
    host,
    port,
    certPem,
    keyPem,
  }: { readonly host: string; readonly port: number; readonly certPem: string; readonly keyPem: string },
  options: PageOptions,
): { stop(): void } | undefined {
  try {
    const server = Bun.serve({
      ...{ hostname: host, port, development: false, reusePort: false, fetch: pageApp(options).fetch },
      tls: { cert: certPem, key: keyPem },
    });
    return { stop: () => void server.stop(true) };
  } catch {
    return undefined;
  }
}

/** The application. */
export function pageApp({ hosts, facts, isPin, nowMs }: PageOptions): Hono {
  const sessions = new Map<string, number>();
  let tries: number[] = [];
  const app = new Hono();
  app.use(async (context, next) => {
    for (const [name, value] of Object.entries(HEADERS)) context.header(name, value);
    const host = context.req.header("host") ?? "";
    if (!hosts.includes(host.replace(/:\d+$/, "").replace(/^\[|\]$/g, ""))) return context.text("unknown host\n", 421);
    const { method } = context.req;
    if (method !== "GET" && method !== "HEAD" && context.req.header("origin") !== `https://${host}`)
      return context.text("this page is asked from itself alone\n", 403);
    return next();
  });
  app.notFound((context) => context.text("404 page not found\n", 404));
  app.onError((error, context) => context.text(`internal error: ${error.name}\n`, 500));
  app.get("/", async (context) => {
    const [, id = ""] = new RegExp(`(?:^|; )${COOKIE}=([0-9a-f]{64})`).exec(context.req.header("cookie") ?? "") ?? [];
    const endsMs = sessions.get(id);
    if (endsMs === undefined || endsMs < nowMs()) return context.html(pinForm(""));
    return context.html(pageOf(await facts()));
  });
  app.post("/pin", async (context) => {
    const at = nowMs();
    tries = tries.filter((one) => one > at - TRIES.perMs);
    if (tries.length >= TRIES.most) return context.html(pinForm("Too many tries: wait a minute"), 429);
    if (Number(context.req.header("content-length") ?? Infinity) > MAX_FORM_BYTES)
      return context.html(pinForm("That is no PIN"), 413);
    tries.push(at);
    const pin = new URLSearchParams(await context.req.text()).get("pin") ?? "";
    if (!isPin(pin)) return context.html(pinForm("That is not the PIN"), 403);
    tries = [];
    const id = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
    if (sessions.size >= MAX_SESSIONS) sessions.delete(sessions.keys().next().value!);
    sessions.set(id, at + SESSION_MS);
    context.header(
      "Set-Cookie",
      `${COOKIE}=${id}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=${SESSION_MS / 1_000}`,
    );
    return context.redirect("/", 303);
  });
  return app;
}
