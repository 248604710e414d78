// Follows the node's state for as long as the page is open: connects, notices silence, connects again.

import type { StatusChanges, StatusDocument } from "./contract";
import { request, RequestFailed } from "./client";
import { events } from "./sse";

const SILENCE_MS = 25_000; // the node writes a comment every 10 s: two missed ones mean that it is gone
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 8_000;

export interface Follower {
  onDocument(document: StatusDocument): void;
  onChanges(changes: StatusChanges): void; // of the document that came last
  onAlive(): void;
  onLost(reason: string): void;
  onRefused(reason: string): void; // an API key is missing or wrong
}

export function retryDelayMs(failures: number): number {
  return Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.max(0, failures - 1));
}

export async function follow(follower: Follower, stop: AbortSignal): Promise<void> {
  let failures = 0;
  const last = { id: "" }; // the newest event: the node goes on from there
  while (!stop.aborted) {
    try {
      await followOnce(follower, stop, last, () => (failures = 0));
      follower.onLost("the node closed the connection");
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof RequestFailed && error.status === 401) return follower.onRefused(error.message);
      follower.onLost(error instanceof RequestFailed ? error.message : "the node does not answer");
    }
    failures += 1;
    await pause(retryDelayMs(failures), stop);
  }
}

async function followOnce(follower: Follower, stop: AbortSignal, last: { id: string }, onFirst: () => void): Promise<void> {
  const silence = new AbortController();
  const giveUp = () => silence.abort(new Error("silence"));
  let timer = setTimeout(giveUp, SILENCE_MS);
  const onBytes = () => {
    clearTimeout(timer);
    timer = setTimeout(giveUp, SILENCE_MS);
    follower.onAlive();
  };
  try {
    const headers: Record<string, string> = last.id ? { "Last-Event-ID": last.id } : {};
    const response = await request("api/events", { signal: AbortSignal.any([stop, silence.signal]), headers });
    if (!response.body) throw new Error("no body");
    for await (const event of events(response.body, onBytes)) {
      onFirst();
      if (event.name === "status") follower.onDocument(JSON.parse(event.data) as StatusDocument);
      else if (event.name === "changes") follower.onChanges(JSON.parse(event.data) as StatusChanges);
      else continue;
      last.id = event.id;
    }
  } finally {
    clearTimeout(timer);
  }
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
