// What is over goes: the time for which data is kept, and the store it was kept for. Both are said, signed, each time.

import { event, type KeysExpired, SERVICE } from "./events.js";
import type { Signer } from "./signatures.js";
import { type Life, lock, publish, type Store, type Transaction } from "./store.js";
import { RETENTION } from "./subscribers.js";

export class Endings {
  constructor(
    private readonly store: Store,
    private readonly signer: Signer,
  ) {}

  /** Deletes what lies under the keys of a bucket whose time is over. */
  async expire(storeId: string, expired: KeysExpired): Promise<void> {
    if (expired.retention !== RETENTION) return;
    const { subject_id, generation, retention, bucket } = expired;
    await this.store.transaction(async (transaction) => {
      const life = { storeId, subjectId: subject_id, generation };
      await lock(transaction, life);
      const rows = await clean(transaction, life, expired.key_ids);
      const counts = rows > 0 ? { subscriber: rows } : {};
      const cleaned = { subject_id, generation, retention, bucket, participant: SERVICE, counts };
      const type = "vitrine.privacy.rows-cleaned.v1";
      const signed = await this.signer.sign(cleaned, storeId);
      await publish(transaction, event(type, "privacy.retention", storeId, subject_id, signed));
    });
  }

  /** Deletes what there is of a store; nothing of it is taken any more. No law keeps anything of a newsletter. */
  async end(storeId: string): Promise<void> {
    await this.store.transaction(async (transaction) => {
      // Whoever writes about somebody there has ended before, or finds that the store has.
      await transaction.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [storeId]);
      await transaction.query("INSERT INTO ended_store (store_id) VALUES ($1) ON CONFLICT DO NOTHING", [
        storeId,
      ]);
      for (const table of ["subscriber", "on_hold", "objection", "cleaned"]) {
        await transaction.query(`DELETE FROM ${table} WHERE store_id = $1`, [storeId]);
      }
      const cleaned = { store_id: storeId, participant: SERVICE, kept: [] };
      const type = "vitrine.privacy.store-cleaned.v1";
      const signed = await this.signer.sign(cleaned, storeId);
      await publish(transaction, event(type, "privacy.stores", storeId, storeId, signed));
    });
  }
}

/** How many rows went, now and when it was asked before. */
async function clean(transaction: Transaction, life: Life, keys: readonly string[]): Promise<number> {
  const deleted = await transaction.query(
    `DELETE FROM subscriber WHERE store_id = $1 AND subject_id = $2 AND generation = $3
       AND encode(substr(box, 2, 16), 'hex') = ANY($4)`,
    [life.storeId, life.subjectId, life.generation, keys.map((key) => key.replaceAll("-", ""))],
  );
  const noted = await transaction.query(
    `INSERT INTO cleaned AS known (store_id, subject_id, generation, rows) VALUES ($1, $2, $3, $4)
     ON CONFLICT (store_id, subject_id, generation) DO UPDATE SET rows = known.rows + excluded.rows RETURNING rows`,
    [life.storeId, life.subjectId, life.generation, deleted.rowCount ?? 0],
  );
  return noted.rows[0].rows;
}
