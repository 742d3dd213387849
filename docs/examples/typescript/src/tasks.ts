// What is asked about a person, and what is done for it. What needs the keyring comes first, what is to be kept together
// is left for one transaction: a verb gives back what to do there, and that gives back what to answer.

import { createHash } from "node:crypto";
import { z } from "zod";
import { type DataKey, keyIdOf, open, seal } from "./boxes.js";
import { event, type Outgoing, SERVICE, type Task } from "./events.js";
import { type Keyring, NoKey } from "./keyring.js";
import type { Signer } from "./signatures.js";
import {
  bury,
  count,
  keepAnswer,
  type Life,
  left,
  lock,
  note,
  publish,
  type Row,
  release,
  remove,
  replace,
  SKIPPED,
  type Store,
  type Transaction,
  tablesOfPeople,
} from "./store.js";
import { CATEGORIES, includes, KIND, PURPOSE, RETENTION, Subscriber } from "./subscribers.js";

const CHUNK_BYTES = 512 * 1024;
const ANSWERS = "privacy.answers";

interface Answer {
  readonly outcome: "done" | "nothing-held" | "retained" | "failed";
  readonly references?: string;
  readonly [more: string]: unknown;
}
type Finish = (transaction: Transaction) => Promise<Answer>;

/** Somebody changed a row while it was worked on: begin again. */
export class Moved extends Error {}

export class Tasks {
  constructor(
    private readonly store: Store,
    private readonly keyring: Keyring,
    private readonly signer: Signer,
  ) {}

  /** Does what is new, and answers again what was answered. Throws what may go well at another time. */
  async take(storeId: string, task: Task): Promise<void> {
    if (task.participants.length > 0 && !task.participants.includes(SERVICE)) return;
    const known = await this.store.answerTo(task.request_id, task.verb, task.round);
    if (known) {
      await this.store.transaction((transaction) => publish(transaction, answered(storeId, task, known)));
      return;
    }
    const finish = await this.begin(storeId, task);
    await this.store.transaction(async (transaction) => {
      const { request_id, verb, round } = task;
      const said = { request_id, verb, round, participant: SERVICE, ...(await finish(transaction)) };
      const { references, ...signed } = said;
      const answer = { ...(await this.signer.sign(signed, storeId)), ...(references ? { references } : {}) };
      // What failed is done again when it is asked again.
      if (said.outcome !== "failed") await keepAnswer(transaction, task, answer);
      await publish(transaction, answered(storeId, task, answer));
    });
  }

  private async begin(storeId: string, task: Task): Promise<Finish> {
    const lives = [task, ...task.also].map((one) => ({
      storeId,
      subjectId: one.subject_id,
      generation: one.generation,
    }));
    switch (task.verb) {
      case "export":
        return await this.export(task, lives);
      case "refer":
        return await this.refer(task, lives);
      case "rectify":
        return await this.rectify(task, lives);
      case "preview":
        return task.proposal ? await this.rectify(task, lives) : (tx) => preview(tx, task, lives);
      case "erase":
        return task.category || task.purpose
          ? await this.erasePart(task, lives)
          : (tx) => erase(tx, task, lives);
      case "verify-erased":
        return (transaction) => verify(transaction, task, lives);
      case "restrict":
      case "lift-restriction":
        return (transaction) => hold(transaction, task, lives);
      case "object":
        return (transaction) => object(transaction, task, lives);
      case "prepare":
        // Nobody has our subscribers' data from us.
        return async () => ({ outcome: "done" });
      case "recognise":
        // There are no orders here.
        return async () => ({ outcome: "nothing-held" });
    }
  }

  // --- What is shown --------------------------------------------------------------------------------------

  private async export(task: Task, lives: readonly Life[]): Promise<Finish> {
    const records: object[] = [];
    for (const life of lives)
      for (const row of await this.store.rows(life)) records.push(await this.record(row));
    const [whose] = lives;
    const boxes = whose ? await this.sealed(task, whose, records) : [];
    if (boxes.length === 0) return async () => ({ outcome: "nothing-held" });
    return async (transaction) => {
      for (const [sequence, box] of boxes.entries()) {
        const { request_id, round } = task;
        const body = { request_id, participant: SERVICE, round, sequence, box: box.toString("base64") };
        const type = "vitrine.privacy.export-chunk.v1";
        await publish(transaction, event(type, ANSWERS, (whose as Life).storeId, request_id, body));
      }
      const hashes = boxes.map((box) => createHash("sha256").update(box).digest());
      const digest = createHash("sha256").update(Buffer.concat(hashes)).digest("hex");
      return { outcome: "done", counts: { subscriber: records.length }, chunks: boxes.length, digest };
    };
  }

  private async record(row: Row): Promise<object> {
    const told = {
      table: "subscriber",
      kind: KIND,
      facts: { subscribed_at: row.subscribedAt.toISOString() },
      attached: {},
    };
    try {
      return { ...told, data: open(KIND, row.box, await this.keyring.open(keyIdOf(row.box))) };
    } catch (error) {
      if (!(error instanceof NoKey)) throw error;
      return { ...told, data: null, unreadable: error.message === "restricted" ? "on-hold" : "erased" };
    }
  }

  /** Boxes of at most 512 KiB, under the key of this request, which ends with the download. */
  private async sealed(task: Task, whose: Life, records: readonly object[]): Promise<Buffer[]> {
    if (records.length === 0) return [];
    let key: DataKey;
    try {
      key = await this.keyring.mint({ ...whose, retention: "export", bucket: task.request_id });
    } catch (error) {
      if (error instanceof NoKey) return [];
      throw error;
    }
    const chunks: object[][] = [[]];
    let size = 0;
    for (const record of records) {
      const bytes = Buffer.byteLength(JSON.stringify(record)) + 1;
      if (size + bytes > CHUNK_BYTES - 1024) {
        chunks.push([]);
        size = 0;
      }
      chunks.at(-1)?.push(record);
      size += bytes;
    }
    return chunks.map((some) => seal("ExportedRecords", { records: some }, key));
  }

  /** By what those outside know the person, sealed for the request. */
  private async refer(task: Task, lives: readonly Life[]): Promise<Finish> {
    const known: string[] = [];
    for (const { data } of await this.opened(lives)) known.push(data.email);
    const [whose] = lives;
    if (known.length === 0 || !whose) return async () => ({ outcome: "nothing-held" });
    const key = await this.keyring.mint({ ...whose, retention: "request", bucket: task.request_id });
    const box = seal(
      "References",
      { emails: [...new Set(known)], phones: [], accounts: [], orders: [] },
      key,
    );
    const digest = createHash("sha256").update(box).digest("hex");
    return async () => ({ outcome: "done", digest, references: box.toString("base64") });
  }

  // --- What is corrected ----------------------------------------------------------------------------------

  /** A box keeps its key: what is on hold stays so, and ends with the rest. */
  private async rectify(task: Task, lives: readonly Life[]): Promise<Finish> {
    const [whose] = lives;
    if (!whose || !task.proposal) return async () => ({ outcome: "failed", reason: "no-proposal" });
    const rows = await this.opened(lives);
    if (rows.length === 0) return async () => ({ outcome: "nothing-held" });
    const proposal = Buffer.from(task.proposal, "base64");
    const { corrections } = Proposal.parse(
      open("Proposal", proposal, await this.keyring.open(keyIdOf(proposal))),
    );
    const refused = new Set<string>();
    const right: Record<string, unknown> = {};
    for (const { category, value } of corrections) {
      for (const [field, own] of Object.entries(CATEGORIES)) {
        if (own !== category) continue;
        if (Subscriber.shape[field as keyof Subscriber].safeParse(value).success && value !== null)
          right[field] = value;
        else refused.add(category);
      }
    }
    const changed = Object.keys(right).length > 0 ? rows : [];
    return async (transaction) => {
      if (task.verb === "rectify") {
        for (const { row, data, key } of changed) {
          if (!(await replace(transaction, row, seal(KIND, { ...data, ...right }, key)))) throw new Moved();
        }
      }
      if (changed.length === 0 && refused.size === 0) return { outcome: "nothing-held" };
      const counts = changed.length > 0 ? { subscriber: changed.length } : {};
      return { outcome: "done", counts, refused: [...refused].sort() };
    };
  }

  // --- What is erased in part -----------------------------------------------------------------------------

  /** What is of this alone goes; of the rest what is asked for goes, and it is sealed anew: its key is to be destroyed. */
  private async erasePart(task: Task, lives: readonly Life[]): Promise<Finish> {
    const asked = (category: string) => !!task.category && includes(task.category, category);
    if (task.purpose === PURPOSE || asked(CATEGORIES.email)) return (tx) => eraseRows(tx, lives);
    const anew: { row: Row; box: Buffer; named: boolean }[] = [];
    for (const { row, data } of await this.opened(lives)) {
      if (!task.retired.includes(keyIdOf(row.box))) continue;
      const { storeId, subjectId } = row;
      const key = await this.keyring.mint({ storeId, subjectId, retention: RETENTION });
      const kept = asked(CATEGORIES.name) ? { ...data, name: null } : data;
      anew.push({ row, box: seal(KIND, kept, key), named: kept.name !== data.name });
    }
    return async (transaction) => {
      for (const { row, box } of anew) if (!(await replace(transaction, row, box))) throw new Moved();
      const rows = anew.filter((one) => one.named).length;
      return rows > 0 ? { outcome: "done", counts: { subscriber: rows } } : { outcome: "nothing-held" };
    };
  }

  /** The rows of this life whose boxes open. */
  private async opened(lives: readonly Life[]): Promise<{ row: Row; data: Subscriber; key: DataKey }[]> {
    const found: { row: Row; data: Subscriber; key: DataKey }[] = [];
    for (const life of lives) {
      for (const row of await this.store.rows(life)) {
        try {
          const key = await this.keyring.open(keyIdOf(row.box));
          found.push({ row, data: Subscriber.parse(open(KIND, row.box, key)), key });
        } catch (error) {
          if (!(error instanceof NoKey)) throw error;
        }
      }
    }
    return found;
  }
}

const Proposal = z.object({ corrections: z.array(z.object({ category: z.string(), value: z.unknown() })) });

function answered(storeId: string, task: Task, answer: object): Outgoing {
  return event("vitrine.privacy.task-answered.v1", ANSWERS, storeId, task.request_id, answer);
}

// --- What needs no key --------------------------------------------------------------------------------------

async function preview(transaction: Transaction, task: Task, lives: readonly Life[]): Promise<Answer> {
  const { category, purpose } = task;
  const concerned =
    (!purpose || purpose === PURPOSE) &&
    (!category || Object.values(CATEGORIES).some((own) => includes(category, own)));
  const rows = concerned ? await count(transaction, lives) : 0;
  return rows > 0 ? { outcome: "done", counts: { subscriber: rows } } : { outcome: "nothing-held" };
}

async function erase(transaction: Transaction, task: Task, lives: readonly Life[]): Promise<Answer> {
  for (const life of lives) {
    await lock(transaction, life);
    await bury(transaction, life);
  }
  const held = task.held.find((one) => one.retention === RETENTION);
  const kept = held ? await count(transaction, lives) : 0;
  if (!held || kept === 0) return await eraseRows(transaction, lives);
  const { ground, until } = held;
  const retained = [{ kind: KIND, retention: RETENTION, bucket: "", count: kept, ground, until }];
  return { outcome: "retained", retained };
}

async function eraseRows(transaction: Transaction, lives: readonly Life[]): Promise<Answer> {
  let rows = 0;
  for (const life of lives) rows += await remove(transaction, life);
  return rows > 0 ? { outcome: "done", counts: { subscriber: rows } } : { outcome: "nothing-held" };
}

/** By another way than it was erased: by the catalogue of the database, not by the names in the code. */
async function verify(transaction: Transaction, task: Task, lives: readonly Life[]): Promise<Answer> {
  const held = task.held.some((one) => one.retention === RETENTION);
  const skipped = held ? { ...SKIPPED, subscriber: "kept" } : SKIPPED;
  const reread = await tablesOfPeople(transaction, Object.keys(skipped));
  const counts: Record<string, number> = {};
  const whole = !task.category && !task.purpose;
  for (const table of whole || task.retired.length > 0 ? reread : []) {
    const rows = await left(transaction, table, lives, whole ? [] : task.retired);
    if (rows > 0) counts[table] = rows;
  }
  if (Object.keys(counts).length === 0) return { outcome: "done", reread, skipped };
  return { outcome: "failed", reason: "left-over", counts, reread, skipped };
}

/** Whoever sends the newsletter leaves out who is on hold; nothing here deletes anybody by a timer. */
async function hold(transaction: Transaction, task: Task, lives: readonly Life[]): Promise<Answer> {
  const rows = await count(transaction, lives);
  if (rows === 0) return { outcome: "nothing-held" };
  for (const life of lives) {
    if (task.verb === "restrict") await note(transaction, "on_hold", life);
    else await release(transaction, life);
  }
  return { outcome: "done", counts: { subscriber: rows } };
}

async function object(transaction: Transaction, task: Task, lives: readonly Life[]): Promise<Answer> {
  if (task.purpose !== PURPOSE) return { outcome: "nothing-held" };
  if ((await count(transaction, lives)) > 0) {
    for (const life of lives) await note(transaction, "objection", life);
  }
  return { outcome: "done" };
}
