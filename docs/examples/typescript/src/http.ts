// Bodies of HTTP requests, and what may be said of an error.

import type { IncomingMessage } from "node:http";

const LONGEST_BODY = 100_000;

/** The body as it was sent; throws when it is too long. */
export async function textOf(request: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > LONGEST_BODY) throw new Error("too long");
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}

/** The JSON of a body; undefined when it is none. */
export async function bodyOf(request: IncomingMessage): Promise<unknown> {
  try {
    return JSON.parse(await textOf(request));
  } catch {
    return undefined;
  }
}

/** A fixed word, or the class of an error: its message could quote somebody's data. */
export function complain(what: unknown): void {
  const error = what instanceof Error ? what.name : String(what);
  console.error(JSON.stringify({ level: "error", error }));
}
