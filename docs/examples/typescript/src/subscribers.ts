// What is kept of a person, why, and how long: one table, one kind of box.

import { z } from "zod";

export const RETENTION = "account";
export const PURPOSE = "marketing.communications.email";
export const KIND = "Subscriber";

/** Whom the newsletter is for. A name can be removed alone; without an address there is no subscriber. */
export const Subscriber = z.object({
  email: z.email().max(254),
  name: z.string().min(1).max(100).nullable(),
});
export type Subscriber = z.infer<typeof Subscriber>;

export const CATEGORIES: Readonly<Record<keyof Subscriber, string>> = {
  email: "user.contact.email",
  name: "user.name",
};

/** `user.contact` includes `user.contact.email`. */
export function includes(category: string, other: string): boolean {
  return other === category || other.startsWith(`${category}.`);
}

/** The part of the data map that the privacy service shows for us. */
export const DATA_MAP = [
  {
    service: "newsletter",
    table: "subscriber",
    column: "box",
    impersonal: ["subscribed_at"],
    indexes: [],
    on_erase: "delete",
    source: "person",
    kind: KIND,
    description: "Whom the newsletter is for.",
    categories: { email: [CATEGORIES.email], name: [CATEGORIES.name] },
    purposes: [PURPOSE],
    legal_basis: "Consent",
    recipients: ["mail provider"],
    retention: {
      name: RETENTION,
      period: "As long as the account exists",
      law: "GDPR, Art. 6(1)(b)",
      kept_by_law: false,
      clocks: { "account-closed": "P3M" },
    },
    schema: {
      type: "object",
      properties: {
        table: { const: "subscriber" },
        kind: { const: KIND },
        facts: {
          type: "object",
          properties: { subscribed_at: { type: "string", format: "date-time" } },
          required: ["subscribed_at"],
        },
        data: {
          type: ["object", "null"],
          properties: { email: { type: "string" }, name: { type: ["string", "null"] } },
          required: ["email", "name"],
        },
        attached: { type: "object" },
        unreadable: { enum: ["erased", "on-hold"] },
      },
      required: ["table", "kind", "facts", "data", "attached"],
    },
  },
] as const;
