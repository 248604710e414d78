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
  | { kind: "asked"; text: string; images?: string[]; model: string }
  | { kind: "again"; at?: number; model: string } // an answer, the last if none is named, is asked for once more
  | { kind: "edited"; at: number; text: string; model: string } // a question is asked otherwise
  | { kind: "heard"; fact: ChatFact; afterFirstMs: number; firstMs: number | null } // since the first text
  | { kind: "finished" }
  | { kind: "stopped" }
  | { kind: "failed"; message: string };

export const silence: Conversation = { id: "", turns: [], isAnswering: false };

const UNKNOWN = { thought: "", tokens: 0, tokensPerS: null, firstMs: null, node: "", routedBy: "", images: [] };

function turn(role: Turn["role"], content: string, model: string, images: string[] = []): Turn {
  return { ...UNKNOWN, role, content, model, images, ended: "", reason: "" };
}

// What was said before a turn, then that turn anew and an answer to come. What followed is forgotten.
function anew(talk: Conversation, at: number, question: Turn[], model: string): Conversation {
  return { ...talk, turns: [...talk.turns.slice(0, at), ...question, turn("assistant", "", model)], isAnswering: true };
}

export function converse(talk: Conversation, spoken: Spoken): Conversation {
  switch (spoken.kind) {
    case "asked":
      return anew(talk, talk.turns.length, [turn("user", spoken.text, "", spoken.images)], spoken.model);
    case "again": {
      const at = spoken.at ?? talk.turns.length - 1;
      return talk.isAnswering || talk.turns[at]?.role !== "assistant" ? talk : anew(talk, at, [], spoken.model);
    }
    case "edited": {
      const question = talk.turns[spoken.at];
      if (talk.isAnswering || question?.role !== "user") return talk;
      return anew(talk, spoken.at, [{ ...question, content: spoken.text }], spoken.model);
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
  return said.map(({ role, content, images }) => ({ role, content, images }));
}

// What an earlier page left of a conversation; null where that is none.
export function revived(found: Partial<Conversation> | null): Conversation | null {
  if (!Array.isArray(found?.turns) || !found.turns.every(isTurn)) return null;
  const id = typeof found.id === "string" ? found.id : "";
  const talk = { id, turns: found.turns.map((entry) => ({ ...UNKNOWN, ...entry })), isAnswering: false };
  return found.isAnswering ? converse(talk, { kind: "failed", message: "the page was closed during this answer" }) : talk;
}

function isTurn(value: unknown): boolean {
  const entry = value as Partial<Turn> | null;
  const isText = typeof entry?.content === "string" && typeof entry.thought === "string" && typeof entry.ended === "string";
  return isText && (entry?.images === undefined || (Array.isArray(entry.images) && entry.images.every((one) => typeof one === "string")));
}
