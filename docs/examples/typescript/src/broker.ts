// The broker: read from the beginning in a group of our own, committed only when done, sent in order and acknowledged.

import { type Admin, type Consumer, Kafka, logLevel, Partitioners, type Producer } from "kafkajs";
import { z } from "zod";
import type { Endings } from "./endings.js";
import {
  event,
  KeysExpired,
  type Outgoing,
  PLATFORM_STORE,
  SERVICE,
  StoreKeysDestroyed,
  Task,
} from "./events.js";
import { complain } from "./http.js";
import type { Signer } from "./signatures.js";
import type { Store } from "./store.js";
import { DATA_MAP } from "./subscribers.js";
import type { Tasks } from "./tasks.js";

const READ = ["privacy.tasks", "privacy.keys", "privacy.stores"];
const WRITTEN = ["privacy.participants", "privacy.answers", "privacy.retention"];
const PARTITIONS = 8;
const DAY = 24 * 60 * 60 * 1000;

export class Broker {
  private readonly admin: Admin;
  private readonly consumer: Consumer;
  private readonly producer: Producer;
  private announcing: NodeJS.Timeout | undefined;

  constructor(
    brokers: readonly string[],
    private readonly store: Store,
    private readonly tasks: Tasks,
    private readonly endings: Endings,
    private readonly signer: Signer,
  ) {
    const kafka = new Kafka({ clientId: SERVICE, brokers: [...brokers], logLevel: logLevel.ERROR });
    this.admin = kafka.admin();
    this.producer = kafka.producer({
      createPartitioner: Partitioners.DefaultPartitioner,
      maxInFlightRequests: 1,
      retry: { retries: 20 },
    });
    // Whatever fails for now is read again from the last commit, for as long as it takes.
    this.consumer = kafka.consumer({
      groupId: SERVICE,
      sessionTimeout: 10_000,
      retry: { retries: 5, restartOnFailure: async () => true },
    });
  }

  async start(): Promise<void> {
    await this.admin.connect();
    const topics = [...READ, ...WRITTEN].map((topic) => ({ topic, numPartitions: PARTITIONS }));
    await this.admin.createTopics({ topics, waitForLeaders: true });
    await this.producer.connect();
    await this.announce();
    this.announcing = setInterval(() => void this.announce().catch(complain), DAY);
    await this.consumer.connect();
    await this.consumer.subscribe({ topics: READ, fromBeginning: true });
    await this.consumer.run({
      eachMessage: async ({ message: { headers, value } }) => {
        await this.handle(textsOf(headers), value?.toString() ?? "");
        await this.relay();
      },
    });
  }

  async stop(): Promise<void> {
    clearInterval(this.announcing);
    await this.consumer.disconnect();
    await this.producer.disconnect();
    await this.admin.disconnect();
  }

  /** Who answers here, with which key, and what is kept: at the start, and once a day. */
  private async announce(): Promise<void> {
    const body = {
      participant: SERVICE,
      public_key: this.signer.publicKey,
      data_map: DATA_MAP,
      prepares: false,
    };
    const type = "vitrine.privacy.participant-announced.v1";
    await this.send([event(type, "privacy.participants", PLATFORM_STORE, SERVICE, body)]);
    await this.relay();
  }

  /** What is no event of ours, or of a later release, is passed over. */
  private async handle(headers: Record<string, string>, value: string): Promise<void> {
    const store = z.uuid().safeParse(headers.ce_store).data;
    const body = parsed(value);
    if (!store || body === undefined) return complain("undecodable");
    const known = { task: Task, expired: KeysExpired, ended: StoreKeysDestroyed };
    switch (headers.ce_type) {
      case "vitrine.privacy.task-issued.v1": {
        const task = known.task.safeParse(body).data;
        return task ? await this.tasks.take(store, task) : complain("unknown-task");
      }
      case "vitrine.privacy.keys-expired.v1": {
        const expired = known.expired.safeParse(body).data;
        return expired ? await this.endings.expire(store, expired) : complain("unknown-expiry");
      }
      case "vitrine.privacy.store-keys-destroyed.v1":
        return await this.endings.end(store);
      // Opened keys are never kept here, so news of destroyed and changed ones need nothing.
    }
  }

  private async relay(): Promise<void> {
    await this.store.relay((events) => this.send(events));
  }

  private async send(events: readonly Outgoing[]): Promise<void> {
    // One after the other: the answer to an export comes behind its chunks.
    for (const { topic, key, value, headers } of events) {
      await this.producer.send({ topic, acks: -1, messages: [{ key, value, headers: { ...headers } }] });
    }
  }
}

function textsOf(headers: Record<string, unknown> | undefined): Record<string, string> {
  return Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name, String(value)]));
}

function parsed(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}
