// What goes over the broker: CloudEvents 1.0 in binary mode, JSON bodies. docs/events/asyncapi.json has all of it.

import { randomUUID } from "node:crypto";
import { z } from "zod";

export const SERVICE = "newsletter";
export const PLATFORM_STORE = "00000000-0000-4000-8000-000000000001";

const id = z.uuid();

// A field that a later release adds is dropped here; a verb that it adds is no task of ours.
export const Task = z.object({
  request_id: id,
  verb: z.enum([
    "recognise",
    "preview",
    "export",
    "refer",
    "prepare",
    "erase",
    "verify-erased",
    "rectify",
    "restrict",
    "lift-restriction",
    "object",
  ]),
  subject_id: id,
  generation: z.int(),
  round: z.int().default(1),
  participants: z.array(z.string()).default([]),
  purpose: z.string().nullish(),
  category: z.string().nullish(),
  retired: z.array(id).default([]),
  held: z.array(z.object({ retention: z.string(), until: z.string(), ground: z.string() })).default([]),
  portable: z.boolean().default(false),
  proposal: z.string().nullish(),
  also: z.array(z.object({ subject_id: id, generation: z.int() })).default([]),
});
export type Task = z.infer<typeof Task>;

export const KeysExpired = z.object({
  subject_id: id,
  generation: z.int(),
  retention: z.string(),
  bucket: z.string().default(""),
  key_ids: z.array(id).default([]),
});
export type KeysExpired = z.infer<typeof KeysExpired>;

export const StoreKeysDestroyed = z.object({ store_id: id });

/** A record as it goes to the broker. */
export interface Outgoing {
  readonly topic: string;
  readonly key: string;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** An event of ours, about the aggregate that orders it among its like. */
export function event(
  type: string,
  topic: string,
  storeId: string,
  aggregate: string,
  body: object,
): Outgoing {
  return {
    topic,
    key: `${storeId}:${aggregate}`,
    value: JSON.stringify(body),
    headers: {
      ce_specversion: "1.0",
      ce_id: randomUUID(),
      ce_source: `/${SERVICE}`,
      ce_type: type,
      ce_time: new Date().toISOString(),
      ce_subject: aggregate,
      ce_store: storeId,
      "content-type": "application/json",
    },
  };
}
