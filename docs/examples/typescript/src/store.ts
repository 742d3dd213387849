// Everything that must outlast the process, in PostgreSQL: what is held, what was answered, and what is still to be sent.
// An answer, what it did and what it says commit together; what is sent twice after a crash says the same twice.

import pg from "pg";
import type { Outgoing } from "./events.js";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS subscriber (
    store_id uuid, subject_id uuid, generation integer, box bytea NOT NULL,
    subscribed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (store_id, subject_id, generation));
  CREATE TABLE IF NOT EXISTS on_hold (
    store_id uuid, subject_id uuid, generation integer, PRIMARY KEY (store_id, subject_id, generation));
  CREATE TABLE IF NOT EXISTS objection (
    store_id uuid, subject_id uuid, generation integer, PRIMARY KEY (store_id, subject_id, generation));
  CREATE TABLE IF NOT EXISTS erased (
    store_id uuid, subject_id uuid, generation integer NOT NULL, PRIMARY KEY (store_id, subject_id));
  CREATE TABLE IF NOT EXISTS ended_store (store_id uuid PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS cleaned (
    store_id uuid, subject_id uuid, generation integer, rows integer NOT NULL,
    PRIMARY KEY (store_id, subject_id, generation));
  CREATE TABLE IF NOT EXISTS answered (
    request_id uuid, verb text, round integer, answer jsonb NOT NULL, PRIMARY KEY (request_id, verb, round));
  CREATE TABLE IF NOT EXISTS outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL, key text NOT NULL, value text NOT NULL, headers jsonb NOT NULL);
`;

/** Why a re-read passes over a table. */
export const SKIPPED: Readonly<Record<string, string>> = {
  erased: "names-the-erased",
  cleaned: "names-the-erased",
  ended_store: "names-nobody",
  answered: "names-nobody",
  outbox: "names-nobody",
};

/** What a person's life at a store is: a generation of a subject. */
export interface Life {
  readonly storeId: string;
  readonly subjectId: string;
  readonly generation: number;
}

export interface Row extends Life {
  readonly box: Buffer;
  readonly subscribedAt: Date;
}

export type Transaction = pg.PoolClient;

/** Somebody erased, or a store that has ended: nothing of them is taken any more. */
export class Refused extends Error {}

export class Store {
  private constructor(private readonly pool: pg.Pool) {}

  static async connect(url: string): Promise<Store> {
    const pool = new pg.Pool({ connectionString: url, max: 5 });
    // A connection that breaks while nobody uses it is replaced when somebody does.
    pool.on("error", () => undefined);
    await pool.query(`BEGIN; SELECT pg_advisory_xact_lock(1); ${SCHEMA} COMMIT`);
    return new Store(pool);
  }

  async close(): Promise<void> {
    await this.pool.end();
  }

  async transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T> {
    const client = await this.pool.connect();
    try {
      await client.query("BEGIN");
      const result = await work(client);
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK");
      throw error;
    } finally {
      client.release();
    }
  }

  // --- What is held ---------------------------------------------------------------------------------------

  async rows({ storeId, subjectId, generation }: Life): Promise<Row[]> {
    const found = await this.pool.query(
      "SELECT * FROM subscriber WHERE store_id = $1 AND subject_id = $2 AND generation = $3",
      [storeId, subjectId, generation],
    );
    return found.rows.map((row) => ({
      storeId,
      subjectId,
      generation,
      box: row.box,
      subscribedAt: row.subscribed_at,
    }));
  }

  // --- What was answered, and what is to be sent ----------------------------------------------------------

  async answerTo(requestId: string, verb: string, round: number): Promise<object | undefined> {
    const found = await this.pool.query(
      "SELECT answer FROM answered WHERE request_id = $1 AND verb = $2 AND round = $3",
      [requestId, verb, round],
    );
    return found.rows[0]?.answer;
  }

  /** Send what is waiting, in order, and forget what the broker has. */
  async relay(send: (events: Outgoing[]) => Promise<void>): Promise<void> {
    await this.transaction(async (transaction) => {
      await transaction.query("SELECT pg_advisory_xact_lock(2)");
      const { rows } = await transaction.query("SELECT * FROM outbox ORDER BY id LIMIT 100");
      if (rows.length > 0) await send(rows);
      await transaction.query("DELETE FROM outbox WHERE id = ANY($1)", [rows.map((row) => row.id)]);
    });
  }
}

export async function publish(transaction: Transaction, event: Outgoing): Promise<void> {
  await transaction.query("INSERT INTO outbox (topic, key, value, headers) VALUES ($1, $2, $3, $4)", [
    event.topic,
    event.key,
    event.value,
    JSON.stringify(event.headers),
  ]);
}

export async function keepAnswer(
  transaction: Transaction,
  task: { request_id: string; verb: string; round: number },
  answer: object,
): Promise<void> {
  await transaction.query(
    "INSERT INTO answered (request_id, verb, round, answer) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    [task.request_id, task.verb, task.round, JSON.stringify(answer)],
  );
}

// --- Writing about a person -------------------------------------------------------------------------------

/** Whoever writes about somebody and whoever erases them wait for each other here; so does the end of the store. */
export async function lock(transaction: Transaction, { storeId, subjectId }: Life): Promise<void> {
  await transaction.query("SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))", [storeId]);
  await transaction.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [
    `${storeId}:${subjectId}`,
  ]);
}

/** Takes a subscriber in. Throws Refused. */
export async function keep(transaction: Transaction, life: Life, box: Buffer): Promise<void> {
  await lock(transaction, life);
  const over = await transaction.query(
    `SELECT FROM erased WHERE store_id = $1 AND subject_id = $2 AND generation >= $3
     UNION ALL SELECT FROM ended_store WHERE store_id = $1`,
    [life.storeId, life.subjectId, life.generation],
  );
  if (over.rowCount) throw new Refused("erased");
  await transaction.query(
    `INSERT INTO subscriber (store_id, subject_id, generation, box) VALUES ($1, $2, $3, $4)
     ON CONFLICT (store_id, subject_id, generation) DO UPDATE SET box = excluded.box`,
    [life.storeId, life.subjectId, life.generation, box],
  );
}

/** Seals a row anew, unless somebody changed it meanwhile; whether it did. */
export async function replace(transaction: Transaction, row: Row, box: Buffer): Promise<boolean> {
  const changed = await transaction.query(
    "UPDATE subscriber SET box = $5 WHERE store_id = $1 AND subject_id = $2 AND generation = $3 AND box = $4",
    [row.storeId, row.subjectId, row.generation, row.box, box],
  );
  return changed.rowCount === 1;
}

export async function count(transaction: Transaction, lives: readonly Life[]): Promise<number> {
  let rows = 0;
  for (const life of lives) {
    const found = await transaction.query(
      `SELECT count(*)::integer AS number FROM subscriber
       WHERE store_id = $1 AND subject_id = $2 AND generation <= $3`,
      [life.storeId, life.subjectId, life.generation],
    );
    rows += found.rows[0].number;
  }
  return rows;
}

/** Deletes all that is held of a person up to this generation; how many subscribers that were. */
export async function remove(transaction: Transaction, life: Life): Promise<number> {
  const values = [life.storeId, life.subjectId, life.generation];
  const where = "WHERE store_id = $1 AND subject_id = $2 AND generation <= $3";
  for (const table of ["on_hold", "objection"])
    await transaction.query(`DELETE FROM ${table} ${where}`, values);
  return (await transaction.query(`DELETE FROM subscriber ${where}`, values)).rowCount ?? 0;
}

/** From now on this generation, and all before it, is refused. */
export async function bury(transaction: Transaction, life: Life): Promise<void> {
  await transaction.query(
    `INSERT INTO erased (store_id, subject_id, generation) VALUES ($1, $2, $3)
     ON CONFLICT (store_id, subject_id) DO UPDATE SET generation = greatest(erased.generation, excluded.generation)`,
    [life.storeId, life.subjectId, life.generation],
  );
}

export async function note(
  transaction: Transaction,
  table: "on_hold" | "objection",
  life: Life,
): Promise<void> {
  await transaction.query(
    `INSERT INTO ${table} (store_id, subject_id, generation) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [life.storeId, life.subjectId, life.generation],
  );
}

export async function release(transaction: Transaction, life: Life): Promise<void> {
  await transaction.query(
    "DELETE FROM on_hold WHERE store_id = $1 AND subject_id = $2 AND generation <= $3",
    [life.storeId, life.subjectId, life.generation],
  );
}

// --- Looking again ----------------------------------------------------------------------------------------

/** The tables of the database that name people, by its own catalogue, whatever the code above knows of. */
export async function tablesOfPeople(transaction: Transaction, skipped: Iterable<string>): Promise<string[]> {
  const found = await transaction.query(
    `SELECT table_name AS name FROM information_schema.columns
     WHERE table_schema = current_schema() AND column_name IN ('store_id', 'subject_id', 'generation')
     GROUP BY table_name HAVING count(*) = 3 AND NOT table_name = ANY($1) ORDER BY 1`,
    [[...skipped]],
  );
  return found.rows.map((row) => row.name);
}

/** Rows of a table about these people; only those with a box under one of these keys, when any is named. */
export async function left(
  transaction: Transaction,
  table: string,
  lives: readonly Life[],
  keys: readonly string[],
): Promise<number> {
  const under =
    keys.length > 0 ? "AND encode(substr((held.row ->> 'box')::bytea, 2, 16), 'hex') = ANY($4)" : "";
  let rows = 0;
  for (const life of lives) {
    const found = await transaction.query(
      `SELECT count(*)::integer AS number FROM (SELECT to_jsonb(t) AS row, t.* FROM "${table}" AS t) AS held
       WHERE store_id = $1 AND subject_id = $2 AND generation <= $3 ${under}`,
      [
        life.storeId,
        life.subjectId,
        life.generation,
        ...(under ? [keys.map((key) => key.replaceAll("-", ""))] : []),
      ],
    );
    rows += found.rows[0].number;
  }
  return rows;
}
