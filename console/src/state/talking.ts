// The conversation of this page: what is said, who is asked, and how it is kept.

import { computed, signal } from "@preact/signals";

import { answer } from "../api/chat";
import type { Conversation, Spoken } from "./conversation";
import { converse, restore, silence, turnsToSend } from "./conversation";
import { preferredModel } from "./selectors";
import { highlighted, messageOf, status } from "./signals";

const TALK = "meshllm-conversation";
const MODEL = "meshllm-chat-model";

export const talk = signal<Conversation>(restore(localStorage.getItem(TALK)));
const chosenModel = signal(localStorage.getItem(MODEL) ?? "");
export const chatModel = computed(() => preferredModel(status.value, chosenModel.value));
export const lastNode = computed(() => talk.value.turns.at(-1)?.node ?? ""); // who answered last

let speaking: AbortController | null = null;

function say(spoken: Spoken): void {
  talk.value = converse(talk.value, spoken);
}

function keepTalk(): void {
  try {
    localStorage.setItem(TALK, JSON.stringify(talk.value));
  } catch {
    localStorage.removeItem(TALK); // larger than the browser keeps: better none than half of it
  }
}

// A page that is left in the middle of an answer keeps what it has of it.
addEventListener("pagehide", keepTalk);

export function chooseModel(id: string): void {
  chosenModel.value = id;
  highlighted.value = id;
  localStorage.setItem(MODEL, id);
}

export async function ask(text: string): Promise<void> {
  const model = chatModel.value;
  if (talk.value.isAnswering || text.trim() === "" || model === "") return;
  say({ kind: "asked", text, model });
  await hear(model);
}

export async function askAgain(): Promise<void> {
  const model = chatModel.value;
  if (talk.value.isAnswering || model === "") return;
  say({ kind: "again", model });
  if (talk.value.isAnswering) await hear(model);
}

async function hear(model: string): Promise<void> {
  const mine = new AbortController();
  speaking = mine;
  if (talk.value.id === "") talk.value = { ...talk.value, id: newSession() };
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
  keepTalk();
}

// `crypto.randomUUID` is for secure addresses only, and a node in the living room is none.
function newSession(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function stopAnswer(): void {
  speaking?.abort();
}

export function clearTalk(): void {
  speaking?.abort();
  speaking = null;
  talk.value = silence;
  keepTalk();
}
