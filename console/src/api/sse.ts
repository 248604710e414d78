// Server-sent events from a fetch body. Owns the framing; knows nothing of what events mean.
// `EventSource` would hide comments, which are the sign of life here, and cannot send an API key.

export interface ServerEvent {
  name: string;
  data: string;
  id: string; // "" for an event without one
}

// Takes text as it arrives, in pieces cut anywhere, and returns the events that are complete.
export class EventParser {
  private rest = "";

  push(text: string): ServerEvent[] {
    this.rest += text;
    // A carriage return at the very end may be half of a line end: it waits for the next piece.
    const held = this.rest.endsWith("\r") ? "\r" : "";
    const ready = this.rest.slice(0, this.rest.length - held.length).replace(/\r\n?/g, "\n");
    const blocks = ready.split("\n\n");
    this.rest = (blocks.pop() ?? "") + held;
    return blocks.map(parseBlock).filter((event) => event !== null);
  }
}

function parseBlock(block: string): ServerEvent | null {
  let name = "message";
  let id = "";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line === "" || line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") name = value;
    if (field === "data") data.push(value);
    if (field === "id") id = value;
  }
  return data.length > 0 ? { name, data: data.join("\n"), id } : null;
}

// Reads a body to its end. `onBytes` hears of every arrival, comments included.
export async function* events(body: ReadableStream<Uint8Array>, onBytes?: () => void): AsyncGenerator<ServerEvent> {
  const parser = new EventParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes?.();
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    await reader.cancel().catch(() => undefined); // the stream may have failed already
  }
}
