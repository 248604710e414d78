// The page's state as signals, and the few actions that change it. Views read; only this file writes.

import { computed, signal } from "@preact/signals";

import { answer } from "../api/chat";
import { loadModel, setApiKey, unloadModel } from "../api/client";
import { follow } from "../api/follow";
import type { Conversation, Spoken } from "./conversation";
import { converse, restore, silence, turnsToSend } from "./conversation";
import { preferredModel, sinceDocument_s } from "./selectors";
import type { NodeFact, NodeState } from "./store";
import { reduce, unknownNode } from "./store";

const TALK = "meshllm-conversation";
const MODEL = "meshllm-chat-model";

// -- the node --------------------------------------------------------------------------------------

export const node = signal<NodeState>(unknownNode);
export const nowMs = signal(Date.now());
export const status = computed(() => node.value.status);
export const age_s = computed(() => sinceDocument_s(node.value, nowMs.value));

function take(fact: NodeFact): void {
  node.value = reduce(node.value, fact);
}

let following = new AbortController();

export function start(): void {
  setInterval(() => (nowMs.value = Date.now()), 1000);
  followNode();
}

function followNode(): void {
  following.abort();
  following = new AbortController();
  const follower = {
    onDocument: (document: NonNullable<NodeState["status"]>) => take({ kind: "document", document, atMs: Date.now() }),
    onAlive: () => take({ kind: "alive", atMs: Date.now() }),
    onLost: (reason: string) => take({ kind: "lost", reason }),
    onRefused: (reason: string) => take({ kind: "refused", reason }),
  };
  void follow(follower, following.signal);
}

export function useKey(key: string): void {
  setApiKey(key.trim());
  take({ kind: "retried" });
  followNode();
}

// -- models ----------------------------------------------------------------------------------------

export const asking = signal<ReadonlySet<string>>(new Set()); // models whose change was asked and not yet answered
export const modelProblem = signal<{ model: string; message: string } | null>(null);

export async function changeModel(id: string, change: "load" | "unload"): Promise<void> {
  if (asking.value.has(id)) return;
  asking.value = new Set([...asking.value, id]);
  modelProblem.value = null;
  try {
    await (change === "load" ? loadModel(id) : unloadModel(id));
  } catch (error) {
    modelProblem.value = { model: id, message: messageOf(error) };
  } finally {
    asking.value = new Set([...asking.value].filter((other) => other !== id));
  }
}

// -- chat ------------------------------------------------------------------------------------------

export const talk = signal<Conversation>(restore(localStorage.getItem(TALK)));
const chosenModel = signal(localStorage.getItem(MODEL) ?? "");
export const chatModel = computed(() => preferredModel(status.value, chosenModel.value));

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
  localStorage.setItem(MODEL, id);
}

export async function ask(text: string): Promise<void> {
  const model = chatModel.value;
  if (talk.value.isAnswering || text.trim() === "" || model === "") return;
  const mine = new AbortController();
  speaking = mine;
  say({ kind: "asked", text, model });
  let firstAtMs: number | null = null;
  try {
    for await (const fact of answer(model, turnsToSend(talk.value), mine.signal)) {
      if (fact.kind === "text" || fact.kind === "thought") firstAtMs ??= performance.now();
      if (mine === speaking) say({ kind: "heard", fact, afterFirstMs: performance.now() - (firstAtMs ?? 0) });
    }
    if (mine === speaking) say({ kind: "finished" });
  } catch (error) {
    if (mine === speaking) say(mine.signal.aborted ? { kind: "stopped" } : { kind: "failed", message: messageOf(error) });
  }
  if (mine === speaking) speaking = null;
  keepTalk();
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

function messageOf(error: unknown): string {
  return error instanceof Error && error.name !== "TypeError" ? error.message : "the node does not answer";
}
