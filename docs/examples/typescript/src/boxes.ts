// Sealed boxes: version (1 byte, 1) | key id (16) | nonce (12) | AES-256-GCM ciphertext and tag (16) of JSON.
// The associated data bind a box to its store, its subject and its kind, so one that was moved does not open.

import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";

export interface DataKey {
  readonly keyId: string;
  readonly material: Buffer;
  readonly storeId: string;
  readonly subjectId: string;
  readonly generation: number;
}

const VERSION = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + 16 + NONCE_BYTES;

export function seal(kind: string, data: unknown, key: DataKey): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key.material, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(boundTo(kind, key));
  const ciphertext = Buffer.concat([cipher.update(JSON.stringify(data), "utf8"), cipher.final()]);
  const keyId = Buffer.from(key.keyId.replaceAll("-", ""), "hex");
  return Buffer.concat([Buffer.of(VERSION), keyId, nonce, ciphertext, cipher.getAuthTag()]);
}

/** Throws for a box of another person, store or kind, and for one that was changed. */
export function open(kind: string, box: Buffer, key: DataKey): unknown {
  if (keyIdOf(box) !== key.keyId) throw new Error("another key's box");
  const decipher = createDecipheriv("aes-256-gcm", key.material, box.subarray(17, HEAD_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(boundTo(kind, key));
  decipher.setAuthTag(box.subarray(-TAG_BYTES));
  const text = Buffer.concat([decipher.update(box.subarray(HEAD_BYTES, -TAG_BYTES)), decipher.final()]);
  return JSON.parse(text.toString("utf8"));
}

export function keyIdOf(box: Buffer): string {
  if (box.length < HEAD_BYTES + TAG_BYTES || box[0] !== VERSION) throw new Error("not a sealed box");
  const hex = box.subarray(1, 17).toString("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function boundTo(kind: string, key: DataKey): Buffer {
  return Buffer.from(`vitrine/box/1|${key.storeId}|${key.subjectId}|${kind}`);
}
