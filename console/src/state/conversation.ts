// A conversation with a model. Pure: what it becomes when something is said, heard or stopped.

import type { ChatFact, ChatTurn } from "../api/chat";

export interface Turn extends ChatTurn {
  thought: string;
  model: string;
  tokens: number;
  tokensPerS: number | null;
  firstMs: number | null; // from the question to the first text
  node: string; // which one answered; "" while unknown
  routedBy: string; // the rule by which it was chosen
  ended: "" | "stopped" | "cut" | "failed"; // "" for an answer that ended by itself
  reason: string;
}

export interface Conversation {
  id: string; // the session: its host remembers its words
  turns: Turn[];
  isAnswering: boolean;
}

export type Spoken =
  | { kind: "asked"; text: string; model: string }
  | { kind: "again"; model: string } // the last answer is thrown away and asked for once more
  | { kind: "heard"; fact: ChatFact; afterFirstMs: number; firstMs: number | null } // since the first text
  | { kind: "finished" }
  | { kind: "stopped" }
  | { kind: "failed"; message: string };

export const silence: Conversation = { id: "", turns: [], isAnswering: false };

const UNKNOWN = { thought: "", tokens: 0, tokensPerS: null, firstMs: null, node: "", routedBy: "" } as const;

function turn(role: Turn["role"], content: string, model: string): Turn {
  return { ...UNKNOWN, role, content, model, ended: "", reason: "" };
}

export function converse(talk: Conversation, spoken: Spoken): Conversation {
  switch (spoken.kind) {
    case "asked": {
      const turns = [...talk.turns, turn("user", spoken.text, ""), turn("assistant", "", spoken.model)];
      return { ...talk, turns, isAnswering: true };
    }
    case "again": {
      if (talk.isAnswering || talk.turns.at(-1)?.role !== "assistant") return talk;
      return { ...talk, turns: [...talk.turns.slice(0, -1), turn("assistant", "", spoken.model)], isAnswering: true };
    }
    case "heard":
      return withAnswer(talk, (answer) => ({
        ...hear(answer, spoken.fact, spoken.afterFirstMs),
        firstMs: answer.firstMs ?? spoken.firstMs,
      }));
    case "finished":
      return { ...talk, isAnswering: false };
    case "stopped":
      return { ...withAnswer(talk, (answer) => ({ ...answer, ended: "stopped" })), isAnswering: false };
    case "failed":
      return {
        ...withAnswer(talk, (answer) => ({ ...answer, ended: "failed", reason: spoken.message })),
        isAnswering: false,
      };
  }
}

function withAnswer(talk: Conversation, change: (answer: Turn) => Turn): Conversation {
  const last = talk.turns.at(-1);
  if (last?.role !== "assistant") return talk;
  return { ...talk, turns: [...talk.turns.slice(0, -1), change(last)] };
}

function hear(answer: Turn, fact: ChatFact, afterFirstMs: number): Turn {
  switch (fact.kind) {
    case "text":
    case "thought": {
      const grown =
        fact.kind === "text"
          ? { ...answer, content: answer.content + fact.text }
          : { ...answer, thought: answer.thought + fact.text };
      const tokens = answer.tokens + 1; // one chunk is one token, until the node gives its own count
      return { ...grown, tokens, tokensPerS: afterFirstMs > 250 ? ((tokens - 1) * 1000) / afterFirstMs : null };
    }
    case "usage":
      return { ...answer, tokens: fact.tokens, tokensPerS: fact.tokensPerS ?? answer.tokensPerS };
    case "model":
      return { ...answer, model: fact.model };
    case "route":
      return { ...answer, node: fact.node, routedBy: fact.reason };
    case "cut":
      return { ...answer, ended: "cut" };
    case "failed":
      return { ...answer, ended: "failed", reason: fact.message };
  }
}

// What the next request carries: an answer that never came would only confuse the model.
export function turnsToSend(talk: Conversation): ChatTurn[] {
  const said = talk.turns.filter((entry, index) => {
    const reply = talk.turns[index + 1];
    if (entry.role === "assistant") return entry.content !== "";
    return !(reply?.role === "assistant" && reply.content === "" && reply.ended !== "");
  });
  return said.map(({ role, content }) => ({ role, content }));
}

// Reads what an earlier page left. Anything unexpected is an empty conversation, never an error.
export function restore(stored: string | null): Conversation {
  try {
    const found = JSON.parse(stored ?? "") as Conversation;
    if (!Array.isArray(found.turns) || !found.turns.every(isTurn)) return silence;
    const id = typeof found.id === "string" ? found.id : "";
    const talk = { id, turns: found.turns.map((entry) => ({ ...UNKNOWN, ...entry })), isAnswering: false };
    return found.isAnswering ? converse(talk, { kind: "failed", message: "the page was closed during this answer" }) : talk;
  } catch {
    return silence;
  }
}

function isTurn(value: unknown): boolean {
  const entry = value as Partial<Turn> | null;
  return typeof entry?.content === "string" && typeof entry.thought === "string" && typeof entry.ended === "string";
}
