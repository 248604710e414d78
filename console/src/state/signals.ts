// What is known of the node, as signals, and which page of it is shown. Views read; only this folder writes.

import { batch, computed, signal } from "@preact/signals";

import { setApiKey, whenKeyIsWanted } from "../api/client";
import type { StatusChanges } from "../api/contract";
import { follow } from "../api/follow";
import type { Happening } from "./happenings";
import { told } from "./happenings";
import { sinceDocument_s } from "./selectors";
import type { NodeFact, NodeState } from "./store";
import { reduce, unknownNode } from "./store";

// -- the node --------------------------------------------------------------------------------------

export const node = signal<NodeState>(unknownNode);
export const nowMs = signal(Date.now());
export const status = computed(() => node.value.status);
export const age_s = computed(() => sinceDocument_s(node.value, nowMs.value));

// What comes within a frame is shown at once: a screen shows no more, and a slow machine is not kept busy.
const waiting: NodeFact[] = [];
const FRAME_MS = 16; // by a timer, since a hidden page has no frames

function take(fact: NodeFact): void {
  waiting.push(fact);
  if (waiting.length === 1) setTimeout(takeAll, FRAME_MS);
}

function takeAll(): void {
  let state = node.value;
  let news = happenings.value;
  for (const fact of waiting.splice(0)) {
    const before = state.status;
    state = reduce(state, fact);
    const after = state.status;
    if (after !== before && after !== null && "atMs" in fact) news = told(news, before, after, fact.atMs);
  }
  batch(() => {
    node.value = state;
    happenings.value = news;
  });
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
    onChanges: (changes: StatusChanges) => take({ kind: "changes", changes, atMs: Date.now() }),
    onAlive: () => take({ kind: "alive", atMs: Date.now() }),
    onLost: (reason: string) => take({ kind: "lost", reason }),
    onRefused: (reason: string) => take({ kind: "refused", reason }),
  };
  void follow(follower, following.signal);
}

whenKeyIsWanted((reason) => {
  following.abort();
  take({ kind: "refused", reason });
});

export function useKey(key: string): void {
  setApiKey(key.trim());
  take({ kind: "retried" });
  followNode();
}

// -- the page --------------------------------------------------------------------------------------

// The tab is the address's fragment: it survives a reload, and the browser's back button works.
export const tab = signal(location.hash.slice(1));
addEventListener("hashchange", () => (tab.value = location.hash.slice(1)));

export const happenings = signal<Happening[]>([]);
export const highlighted = signal(""); // a model whose hosts are shown; "" for none

export function messageOf(error: unknown): string {
  return error instanceof Error && error.name !== "TypeError" ? error.message : "the node does not answer";
}
