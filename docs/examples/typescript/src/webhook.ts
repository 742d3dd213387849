// The other way to take part, without a broker and without keys of ours: a mail provider that was given addresses, and is
// told of requests by signed webhooks (https://www.standardwebhooks.com). Two lines to run it:
//   NEWSLETTER_DATABASE_URL=… WEBHOOK_SECRET=whsec_… npm run webhook

import { createServer, type IncomingMessage } from "node:http";
import pg from "pg";
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { z } from "zod";
import { bodyOf, complain, textOf } from "./http.js";
import { neededFrom } from "./settings.js";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS contact (
    store_id uuid, email text, name text, is_resting boolean NOT NULL DEFAULT false, PRIMARY KEY (store_id, email));
  CREATE TABLE IF NOT EXISTS delivery (id text PRIMARY KEY, answer jsonb NOT NULL);
`;

const Message = z.object({
  type: z.string(),
  data: z.object({
    store: z.object({ id: z.uuid() }),
    person: z.object({ emails: z.array(z.string()) }).default({ emails: [] }),
    corrections: z.array(z.object({ category: z.string(), value: z.unknown() })).default([]),
    category: z.string().nullish(),
  }),
});
type Message = z.infer<typeof Message>;

const Contact = z.object({ store_id: z.uuid(), email: z.email(), name: z.string().nullable().default(null) });

const needed = neededFrom(process.env);
const webhook = new Webhook(needed("WEBHOOK_SECRET"));
const pool = new pg.Pool({ connectionString: needed("NEWSLETTER_DATABASE_URL"), max: 5 });
pool.on("error", () => undefined);
await pool.query(`BEGIN; SELECT pg_advisory_xact_lock(3); ${SCHEMA} COMMIT`);

/** Checks before it reads: a signature that does not fit, or is older than five minutes, changes nothing. */
async function hook(request: IncomingMessage): Promise<[number, object?]> {
  const text = await textOf(request);
  let body: unknown;
  try {
    body = webhook.verify(text, headersOf(request));
  } catch (error) {
    if (error instanceof WebhookVerificationError) return [401];
    throw error;
  }
  const message = Message.safeParse(body).data;
  if (!message) return [422];
  const work = WORK[message.type];
  // A test, or a type of a later release.
  return work ? [200, await once(String(request.headers["webhook-id"]), message, work)] : [204];
}

/** What is done and that it was done are one transaction: the same delivery again gets the same answer. */
async function once(id: string, message: Message, work: Work): Promise<object> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [id]);
    const known = await client.query("SELECT answer FROM delivery WHERE id = $1", [id]);
    const answer = known.rows[0]?.answer ?? outcome(await work(client, message));
    await client.query("INSERT INTO delivery (id, answer) VALUES ($1, $2) ON CONFLICT DO NOTHING", [
      id,
      JSON.stringify(answer),
    ]);
    await client.query("COMMIT");
    return answer;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

function outcome(rows: number): object {
  return rows > 0 ? { outcome: "done", counts: { contact: rows } } : { outcome: "nothing-held" };
}

// --- What is asked ------------------------------------------------------------------------------------------

/** Returns how many contacts it was about. */
type Work = (client: pg.PoolClient, message: Message) => Promise<number>;

const WORK: Readonly<Record<string, Work | undefined>> = {
  // The store has the same data from us on request; here it is only said whether there is any.
  "privacy.export": (client, message) => change(client, message, "SELECT FROM contact WHERE"),
  "privacy.erase": async (client, message) => {
    const isName = message.data.category === "user.name";
    const statement = isName ? "UPDATE contact SET name = NULL WHERE" : "DELETE FROM contact WHERE";
    return await change(client, message, statement);
  },
  "privacy.restrict": (client, message) =>
    change(client, message, "UPDATE contact SET is_resting = true WHERE"),
  "privacy.lift-restriction": (client, message) =>
    change(client, message, "UPDATE contact SET is_resting = false WHERE"),
  // To object to being written to is to be written to no more.
  "privacy.object": (client, message) => change(client, message, "DELETE FROM contact WHERE"),
  "privacy.rectify": async (client, message) => {
    const right = message.data.corrections.find(({ category }) => category === "user.name");
    const name = z.string().min(1).max(100).safeParse(right?.value).data;
    return name ? await change(client, message, "UPDATE contact SET name = $3 WHERE", name) : 0;
  },
};

async function change(
  client: pg.PoolClient,
  message: Message,
  what: string,
  ...more: string[]
): Promise<number> {
  const { store, person } = message.data;
  const emails = person.emails.map((email) => email.toLowerCase());
  const found = await client.query(`${what} store_id = $1 AND email = ANY($2)`, [store.id, emails, ...more]);
  return found.rowCount ?? 0;
}

/** From the shop: somebody to write to. */
async function contact(request: IncomingMessage): Promise<[number]> {
  const given = Contact.safeParse(await bodyOf(request)).data;
  if (!given) return [400];
  await pool.query("INSERT INTO contact (store_id, email, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", [
    given.store_id,
    given.email.toLowerCase(),
    given.name,
  ]);
  return [204];
}

function headersOf(request: IncomingMessage): Record<string, string> {
  return Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
}

const server = createServer(async (request, response) => {
  const routes: Record<string, ((request: IncomingMessage) => Promise<[number, object?]>) | undefined> = {
    "POST /hook": hook,
    "POST /contacts": contact,
  };
  const route = routes[`${request.method} ${request.url}`];
  let [status, body]: [number, object?] = [404];
  try {
    if (route) [status, body] = await route(request);
  } catch (error) {
    complain(error);
    status = 500;
  }
  response.writeHead(status, body ? { "content-type": "application/json" } : {});
  response.end(body ? JSON.stringify(body) : undefined);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.once(signal, () => server.close(() => void pool.end()));
}
server.listen(Number(process.env.WEBHOOK_PORT ?? "8091"), "127.0.0.1");
