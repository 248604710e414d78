// One streamed answer of /v1/chat/completions, as a sequence of small facts.

import { request } from "./client";
import { events } from "./sse";

export interface ChatTurn {
  role: "user" | "assistant";
  content: string;
  images: string[]; // data: addresses
}

export type ChatFact =
  | { kind: "text"; text: string }
  | { kind: "thought"; text: string }
  | { kind: "usage"; tokens: number; tokensPerS: number | null }
  | { kind: "model"; model: string }
  | { kind: "route"; node: string; reason: string } // who answers, and by which rule
  | { kind: "cut" } // the answer reached its limit of tokens
  | { kind: "failed"; message: string };

interface Chunk {
  model?: string;
  error?: { message?: string };
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number } | null;
  timings?: { predicted_per_second?: number; predicted_n?: number };
}

// `session` keeps a conversation at one host, where its words are remembered.
export async function* answer(
  model: string,
  turns: ChatTurn[],
  session: string,
  signal: AbortSignal,
): AsyncGenerator<ChatFact> {
  const body = { model, messages: turns.map(message), stream: true, stream_options: { include_usage: true } };
  const response = await request("v1/chat/completions", { body, signal, headers: { "X-Session-ID": session } });
  yield routeOf(response.headers);
  if (!response.body) throw new Error("the answer has no body");
  for await (const event of events(response.body)) {
    if (event.data === "[DONE]") return;
    const facts = factsOf(JSON.parse(event.data) as Chunk);
    yield* facts;
    if (facts.some((fact) => fact.kind === "failed")) return;
  }
  yield { kind: "failed", message: "the connection ended before the answer did" };
}

// Words alone stay a plain text: not every model's template takes a list of parts.
export function message({ role, content, images }: ChatTurn): { role: string; content: unknown } {
  if (images.length === 0) return { role, content };
  const pictures = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role, content: [...pictures, { type: "text", text: content }] };
}

export function routeOf(headers: Headers): ChatFact {
  return { kind: "route", node: headers.get("X-Mesh-Node") ?? "", reason: headers.get("X-Mesh-Route-Reason") ?? "" };
}

export function factsOf(chunk: Chunk): ChatFact[] {
  if (chunk.error) return [{ kind: "failed", message: chunk.error.message ?? "the node gave no reason" }];
  const facts: ChatFact[] = [];
  const choice = chunk.choices?.[0];
  if (chunk.model) facts.push({ kind: "model", model: chunk.model });
  if (choice?.delta?.reasoning_content) facts.push({ kind: "thought", text: choice.delta.reasoning_content });
  if (choice?.delta?.content) facts.push({ kind: "text", text: choice.delta.content });
  if (choice?.finish_reason === "length") facts.push({ kind: "cut" });
  const tokens = chunk.usage?.completion_tokens ?? chunk.timings?.predicted_n;
  if (tokens !== undefined) {
    facts.push({ kind: "usage", tokens, tokensPerS: chunk.timings?.predicted_per_second ?? null });
  }
  return facts;
}
