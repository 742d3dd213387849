// The participant: sign-ups over HTTP, requests over Kafka, until it is asked to stop.

import { Broker } from "./broker.js";
import { Endings } from "./endings.js";
import { SERVICE } from "./events.js";
import { Keyring } from "./keyring.js";
import { settingsFrom } from "./settings.js";
import { Signer } from "./signatures.js";
import { signUps } from "./signup.js";
import { Store } from "./store.js";
import { Tasks } from "./tasks.js";

const settings = settingsFrom(process.env);
const signer = await Signer.from(settings.serviceKey);
const keyring = new Keyring(settings.keyringUrl, SERVICE, signer);
const store = await Store.connect(settings.databaseUrl);
const broker = new Broker(
  settings.brokers,
  store,
  new Tasks(store, keyring, signer),
  new Endings(store, signer),
  signer,
);
const server = signUps(store, keyring);

async function stop(): Promise<void> {
  server.close();
  await broker.stop();
  await store.close();
}

for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void stop());
server.listen(settings.port, "127.0.0.1");
await broker.start();
