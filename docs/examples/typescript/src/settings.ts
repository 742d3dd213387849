// What the environment says. Nothing is hidden in a default that a deployment would have to know of.

export interface Settings {
  readonly databaseUrl: string;
  readonly brokers: readonly string[];
  readonly keyringUrl: string;
  /** The private ES256 key as a JWK: it signs answers and calls to the keyring. */
  readonly serviceKey: string;
  readonly port: number;
}

/** Looks up variables that must be there. */
export function neededFrom(environment: NodeJS.ProcessEnv): (name: string) => string {
  return (name) => {
    const value = environment[name];
    if (!value) throw new Error(`${name} is not set`);
    return value;
  };
}

export function settingsFrom(environment: NodeJS.ProcessEnv): Settings {
  const needed = neededFrom(environment);
  return {
    databaseUrl: needed("NEWSLETTER_DATABASE_URL"),
    brokers: needed("KAFKA_BOOTSTRAP_SERVERS").split(","),
    keyringUrl: needed("KEYRING_URL"),
    serviceKey: needed("NEWSLETTER_SERVICE_KEY"),
    port: Number(environment.NEWSLETTER_PORT ?? "8090"),
  };
}
