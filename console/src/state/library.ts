// The conversations of this browser: which there are, which one is open, and how they are kept. Pure.

import type { Conversation } from "./conversation";
import { revived, silence } from "./conversation";

export interface Library {
  open: Conversation;
  others: Conversation[]; // the newest first; never an empty one
}

export const emptyLibrary: Library = { open: silence, others: [] };

const KEPT = 50;
const TITLE_CHARS = 48;

// Puts the open one away and begins another.
export function begun(library: Library): Library {
  return library.open.turns.length === 0 ? library : { open: silence, others: shelved(library) };
}

// Takes another one out. The open one is put away as it is.
export function opened(library: Library, id: string): Library {
  const wanted = library.others.find((talk) => talk.id === id);
  if (!wanted) return library;
  return { open: wanted, others: shelved(library).filter((talk) => talk.id !== id) };
}

// Forgets the open one; the newest of the others is open then.
export function forgotten(library: Library): Library {
  const [next, ...rest] = library.others;
  return { open: next ?? silence, others: rest };
}

function shelved({ open, others }: Library): Conversation[] {
  const kept = open.turns.length === 0 ? others : [{ ...open, isAnswering: false }, ...others];
  return kept.slice(0, KEPT);
}

// A conversation is called by its first question.
export function titleOf({ turns }: Conversation): string {
  const said = turns.find(({ role }) => role === "user")?.content.trim().replace(/\s+/g, " ") ?? "";
  if (said === "") return turns.length ? "A picture" : "New conversation";
  return said.length > TITLE_CHARS ? `${said.slice(0, TITLE_CHARS - 1)}…` : said;
}

// Reads what an earlier page left. Anything unexpected is left out, never an error.
export function restored(stored: string | null): Library {
  try {
    const found = JSON.parse(stored ?? "") as { open?: unknown; others?: unknown; turns?: unknown };
    const one = Array.isArray(found.turns) ? found : found.open; // pages before this one kept a single conversation
    const others = Array.isArray(found.others) ? found.others : [];
    return {
      open: revived(one as Conversation) ?? silence,
      others: others.map((talk) => revived(talk as Conversation)).filter((talk) => talk !== null && talk.turns.length > 0) as Conversation[],
    };
  } catch {
    return emptyLibrary;
  }
}

// Smaller forms of a library for a browser that keeps no more: without pictures, then without the older ones.
export function* smaller(library: Library): Generator<Library> {
  const plain = (talk: Conversation) => ({ ...talk, turns: talk.turns.map((turn) => ({ ...turn, images: [] })) });
  yield { open: library.open, others: library.others.map(plain) };
  yield { open: plain(library.open), others: library.others.map(plain) };
  for (let count = library.others.length >> 1; count > 0; count >>= 1) {
    yield { open: plain(library.open), others: library.others.slice(0, count).map(plain) };
  }
  yield { open: plain(library.open), others: [] };
}

// A conversation as a text to keep: who said what, and below each answer who gave it.
export function asMarkdown(talk: Conversation): string {
  const parts = talk.turns.map((turn) => {
    if (turn.role === "user") {
      const pictures = turn.images.length ? `\n\n(${turn.images.length} pictures)` : "";
      return `## Question\n\n${turn.content}${pictures}`;
    }
    const facts = [turn.model, turn.node && `from ${turn.node}`, turn.ended].filter(Boolean).join(", ");
    return `## Answer\n\n${turn.content}\n\n*${facts}*`;
  });
  return `# ${titleOf(talk)}\n\n${parts.join("\n\n")}\n`;
}
