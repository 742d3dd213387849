// Where subscribers come from: the shop says who confirmed that they want the newsletter.

import { createServer, type IncomingMessage, type Server } from "node:http";
import { z } from "zod";
import { seal } from "./boxes.js";
import { bodyOf, complain } from "./http.js";
import { type Keyring, KeyringUnavailable, NoKey } from "./keyring.js";
import { keep, Refused, type Store } from "./store.js";
import { KIND, RETENTION, Subscriber } from "./subscribers.js";

const SignUp = z.object({
  store_id: z.uuid(),
  subject_id: z.uuid(),
  generation: z.int().min(1),
  email: Subscriber.shape.email,
  name: Subscriber.shape.name.default(null),
});

/** `POST /subscribers`: 204, 409 for somebody erased since, 400 for anything else that is wrong with it. */
export function signUps(store: Store, keyring: Keyring): Server {
  return createServer(async (request, response) => {
    const status = await take(request, store, keyring).catch((error: unknown) => {
      if (error instanceof Refused || error instanceof NoKey) return 409;
      if (error instanceof KeyringUnavailable) return 503;
      complain(error);
      return 500;
    });
    response.writeHead(status).end();
  });
}

async function take(request: IncomingMessage, store: Store, keyring: Keyring): Promise<number> {
  if (request.method !== "POST" || request.url !== "/subscribers") return 404;
  const signUp = SignUp.safeParse(await bodyOf(request)).data;
  if (!signUp) return 400;
  const { store_id: storeId, subject_id: subjectId, generation, email, name } = signUp;
  const key = await keyring.mint({ storeId, subjectId, retention: RETENTION });
  // An event of an earlier life came late.
  if (key.generation !== generation) return 409;
  const box = seal(KIND, { email, name }, key);
  await store.transaction((transaction) => keep(transaction, { storeId, subjectId, generation }, box));
  return 204;
}
