// What is signed for others: answers (a detached JWS, RFC 7515, appendix F) and tokens for the keyring.

import { CompactSign, importJWK, type JWK, SignJWT } from "jose";

const ALGORITHM = "ES256";
const TOKEN_SECONDS = 60;

export class Signer {
  private constructor(
    private readonly key: Awaited<ReturnType<typeof importJWK>>,
    readonly publicKey: JWK,
  ) {}

  static async from(jwk: string): Promise<Signer> {
    const { d: _private, ...publicKey } = JSON.parse(jwk) as JWK;
    return new Signer(await importJWK(JSON.parse(jwk) as JWK, ALGORITHM), publicKey);
  }

  /** The answer with its signature: over its JSON with the store's id, keys sorted, no blanks. */
  async sign<A extends object>(answer: A, storeId: string): Promise<A & { signature: string }> {
    const content = Buffer.from(canonical({ ...answer, store_id: storeId }));
    const header = this.publicKey.kid ? { alg: ALGORITHM, kid: this.publicKey.kid } : { alg: ALGORITHM };
    const [head, , signature] = (
      await new CompactSign(content).setProtectedHeader(header).sign(this.key)
    ).split(".");
    return { ...answer, signature: `${head}..${signature}` };
  }

  async token(service: string): Promise<string> {
    return await new SignJWT({})
      .setProtectedHeader({ alg: ALGORITHM })
      .setIssuer(service)
      .setAudience("keyring")
      .setIssuedAt()
      .setExpirationTime(`${TOKEN_SECONDS}s`)
      .sign(this.key);
  }
}

/** JSON with sorted keys and no blanks; RFC 8785 gives the same, since no answer has fractions. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) =>
    one !== null && typeof one === "object" && !Array.isArray(one)
      ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1)))
      : one,
  );
}
