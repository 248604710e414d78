// Asks the node for what is not in its stream of events, and only for what the shown page needs.

import { computed, effect, signal } from "@preact/signals";

import { read } from "../api/client";
import { changeRouting, logText, readRouting } from "../api/orders";
import type { ExplainDocument, PlannedSplit, ProspectDocument, RoutingConfig, RoutingStats } from "../api/routing";
import type { PollFact, Polled } from "./polled";
import { nothing, polled } from "./polled";
import { changesOf } from "./routing-form";
import { highlighted, messageOf, node, tab } from "./signals";

const ACTIVITY_MS = 2000;
const LOGS_MS = 2000;
const LOG_LINES = 300;
const SPLIT_MS = 5000;
const DEADLINE_MS = 10_000;

export const decisions = signal<Polled<ExplainDocument>>(nothing);
export const stats = signal<Polled<RoutingStats>>(nothing);
export const logs = signal<Polled<string>>(nothing);
export const logModel = signal(""); // whose engine's log; "" for the daemon's
export const routing = signal<Polled<RoutingConfig>>(nothing);
export const routingOutcome = signal<{ isGood: boolean; message: string } | null>(null);

export const plannedSplit = signal<Polled<{ model: string; split: PlannedSplit | null }>>(nothing); // of the chosen model

const isRefused = computed(() => node.value.connection === "refused");

interface Target<T> {
  value: Polled<T>;
}

// Asks now and again, until the signal of its page ends. A hidden window asks for nothing.
async function poll<T>(target: Target<T>, ask: (signal: AbortSignal) => Promise<T>, every: number, stop: AbortSignal): Promise<void> {
  const take = (fact: PollFact<T>) => (target.value = polled(target.value, fact));
  while (!stop.aborted) {
    if (!document.hidden) {
      try {
        const value = await ask(AbortSignal.any([stop, AbortSignal.timeout(DEADLINE_MS)]));
        if (!stop.aborted) take({ kind: "came", value, atMs: Date.now() });
      } catch (error) {
        if (!stop.aborted) take({ kind: "failed", problem: messageOf(error) });
      }
    }
    if (every === 0) return;
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}

// Starts what the shown page needs and stops it when another one is shown.
export function startPolling(): void {
  effect(() => {
    const stop = new AbortController();
    const shown = tab.value;
    if (isRefused.value) return undefined;
    if (shown === "activity") {
      void poll(decisions, (signal) => read<ExplainDocument>("api/explain", signal), ACTIVITY_MS, stop.signal);
      void poll(stats, (signal) => read<RoutingStats>("routing/stats", signal), ACTIVITY_MS, stop.signal);
    }
    if (["", "mesh"].includes(shown) && highlighted.value !== "") {
      const model = highlighted.value;
      void poll(plannedSplit, (signal) => readSplit(model, signal), SPLIT_MS, stop.signal);
    }
    if (shown === "events") {
      const model = logModel.value;
      void poll(logs, (signal) => logText(model, LOG_LINES, signal), LOGS_MS, stop.signal);
    }
    if (shown === "settings") void poll(routing, readRouting, 0, stop.signal);
    return () => stop.abort();
  });
}

async function readSplit(model: string, signal: AbortSignal): Promise<{ model: string; split: PlannedSplit | null }> {
  const query = new URLSearchParams({ model, count: "1" });
  return { model, split: (await read<ProspectDocument>(`api/explain?${query.toString()}`, signal)).split };
}

export function chooseLog(model: string): void {
  logs.value = nothing;
  logModel.value = model;
}

// Tells the node what was changed; the version lets it refuse what somebody else has changed meanwhile.
export async function saveRouting(texts: Record<string, string>): Promise<void> {
  const known = routing.value.value;
  if (!known) return;
  routingOutcome.value = null;
  try {
    const changes = changesOf(known, texts);
    if (Object.keys(changes).length === 0) {
      routingOutcome.value = { isGood: true, message: "Nothing was changed." };
      return;
    }
    const value = await changeRouting({ ...changes, scope: known.scope, version: known.version });
    routing.value = polled(routing.value, { kind: "came", value, atMs: Date.now() });
    routingOutcome.value = { isGood: true, message: `Saved: ${Object.keys(changes).join(", ")}.` };
  } catch (error) {
    routingOutcome.value = { isGood: false, message: messageOf(error) };
  }
}

export async function reloadRouting(): Promise<void> {
  routingOutcome.value = null;
  await poll(routing, readRouting, 0, new AbortController().signal);
}
