// The keyring's HTTP interface: the two calls of it that a participant needs. Keys are used and forgotten, never kept.

import type { DataKey } from "./boxes.js";
import type { Signer } from "./signatures.js";

export const RIGHTS_OF_THE_PERSON = "essential.legal_obligation";

/** There is no answer now: ask again later. */
export class KeyringUnavailable extends Error {}

/** The keyring has answered that there is no such key, or none for this: `destroyed`, `subject-erased`, `restricted` … */
export class NoKey extends Error {}

export interface Place {
  readonly storeId: string;
  readonly subjectId: string;
  readonly retention: string;
  /** A request's id, where keys are divided by requests. */
  readonly bucket?: string;
}

interface Item {
  readonly key_id: string;
  readonly key?: string;
  readonly store_id?: string;
  readonly subject_id?: string;
  readonly generation: number;
  readonly error?: string | null;
}

export class Keyring {
  constructor(
    private readonly url: string,
    private readonly service: string,
    private readonly signer: Signer,
  ) {}

  /** The key to seal with, made if need be. Throws NoKey for somebody erased. */
  async mint({ storeId, subjectId, retention, bucket = "" }: Place): Promise<DataKey> {
    const item = { store_id: storeId, subject_id: subjectId, retention, bucket };
    const [minted] = await this.call("keys/mint", { items: [item] });
    return keyOf(minted, { storeId, subjectId });
  }

  /** The key of a box. Throws NoKey when it is gone, on hold, or not for this purpose. */
  async open(keyId: string, purpose = RIGHTS_OF_THE_PERSON): Promise<DataKey> {
    const [opened] = await this.call("keys/open", { purpose, key_ids: [keyId] });
    return keyOf(opened, { storeId: opened?.store_id ?? "", subjectId: opened?.subject_id ?? "" });
  }

  private async call(path: string, body: object): Promise<readonly Item[]> {
    let answer: Response;
    try {
      answer = await fetch(`${this.url}/keyring/v1/${path}`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${await this.signer.token(this.service)}`,
          "content-type": "application/json",
        },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(5000),
      });
    } catch {
      throw new KeyringUnavailable("no answer");
    }
    if (!answer.ok) throw new KeyringUnavailable(`status ${answer.status}`);
    return ((await answer.json()) as { items: Item[] }).items;
  }
}

function keyOf(item: Item | undefined, whose: { storeId: string; subjectId: string }): DataKey {
  if (!item?.key) throw new NoKey(item?.error ?? "unknown");
  return {
    keyId: item.key_id,
    material: Buffer.from(item.key, "base64"),
    generation: item.generation,
    ...whose,
  };
}
