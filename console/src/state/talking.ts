// The conversations of this page: what is said, who is asked, and how they are kept.

import { computed, signal } from "@preact/signals";

import { answer } from "../api/chat";
import type { Spoken } from "./conversation";
import { converse, turnsToSend } from "./conversation";
import type { Library } from "./library";
import { asMarkdown, begun, forgotten, opened, restored, smaller, titleOf } from "./library";
import { canSee, preferredModel } from "./selectors";
import { highlighted, messageOf, status } from "./signals";

const TALK = "meshllm-conversation";
const MODEL = "meshllm-chat-model";

export const library = signal<Library>(restored(localStorage.getItem(TALK)));
export const talk = computed(() => library.value.open);
const chosenModel = signal(localStorage.getItem(MODEL) ?? "");
export const chatModel = computed(() => preferredModel(status.value, chosenModel.value));
export const takesPictures = computed(() => canSee(status.value, chatModel.value));
export const lastNode = computed(() => talk.value.turns.at(-1)?.node ?? ""); // who answered last

let speaking: AbortController | null = null;

function say(spoken: Spoken): void {
  library.value = { ...library.value, open: converse(library.value.open, spoken) };
}

// As much of everything as the browser keeps.
function keepTalks(): void {
  if (stored(library.value)) return;
  for (const less of smaller(library.value)) if (stored(less)) return;
  localStorage.removeItem(TALK); // better none than half of it
}

function stored(what: Library): boolean {
  try {
    localStorage.setItem(TALK, JSON.stringify(what));
    return true;
  } catch {
    return false;
  }
}

// A page that is left in the middle of an answer keeps what it has of it.
addEventListener("pagehide", keepTalks);

export function chooseModel(id: string): void {
  chosenModel.value = id;
  highlighted.value = id;
  localStorage.setItem(MODEL, id);
}

export async function ask(text: string, images: string[] = []): Promise<void> {
  if (text.trim() === "" && images.length === 0) return;
  await begin((model) => ({ kind: "asked", text, images, model }));
}

// An answer once more; what followed it is forgotten.
export async function askAgain(at: number): Promise<void> {
  await begin((model) => ({ kind: "again", at, model }));
}

// A question in other words; what followed it is forgotten.
export async function askOtherwise(at: number, text: string): Promise<void> {
  if (text.trim() !== "") await begin((model) => ({ kind: "edited", at, text, model }));
}

async function begin(spoken: (model: string) => Spoken): Promise<void> {
  const model = chatModel.value;
  if (talk.value.isAnswering || model === "") return;
  say(spoken(model));
  if (talk.value.isAnswering) await hear(model);
}

async function hear(model: string): Promise<void> {
  const mine = new AbortController();
  speaking = mine;
  if (talk.value.id === "") library.value = { ...library.value, open: { ...talk.value, id: newSession() } };
  const askedAtMs = performance.now();
  let firstAtMs: number | null = null;
  try {
    for await (const fact of answer(model, turnsToSend(talk.value), talk.value.id, mine.signal)) {
      if (fact.kind === "text" || fact.kind === "thought") firstAtMs ??= performance.now();
      if (mine !== speaking) return;
      const firstMs = firstAtMs === null ? null : firstAtMs - askedAtMs;
      say({ kind: "heard", fact, afterFirstMs: performance.now() - (firstAtMs ?? 0), firstMs });
    }
    if (mine === speaking) say({ kind: "finished" });
  } catch (error) {
    if (mine === speaking) say(mine.signal.aborted ? { kind: "stopped" } : { kind: "failed", message: messageOf(error) });
  }
  if (mine === speaking) speaking = null;
  keepTalks();
}

// `crypto.randomUUID` is for secure addresses only, and a node in the living room is none.
function newSession(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function stopAnswer(): void {
  speaking?.abort();
}

// Turns to another conversation; an answer that is coming is stopped, and what came of it stays.
function turnTo(change: (library: Library) => Library): void {
  if (speaking) say({ kind: "stopped" });
  speaking?.abort();
  speaking = null;
  library.value = change(library.value);
  keepTalks();
}

export const newTalk = (): void => turnTo(begun);
export const openTalk = (id: string): void => turnTo((all) => opened(all, id));
export const forgetTalk = (): void => turnTo(forgotten);

// Saves the open conversation as a file of this machine.
export function exportTalk(): void {
  const address = URL.createObjectURL(new Blob([asMarkdown(talk.value)], { type: "text/markdown" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `${titleOf(talk.value).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "chat"}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
