// Questions about decisions of routing that views ask. Pure.

import type { Decision } from "../api/routing";
import { count } from "./format";
import type { Tone } from "./selectors";

export function outcomeOf({ ok }: Decision): { word: string; tone: Tone } {
  if (ok === null) return { word: "open", tone: "busy" };
  return ok ? { word: "answered", tone: "good" } : { word: "failed", tone: "bad" };
}

export function seconds(value_s: number | null): string {
  if (value_s === null) return "–";
  return value_s < 1 ? `${Math.round(value_s * 1000)} ms` : `${value_s.toFixed(1)} s`;
}

// Decisions about one request: the choice of its model, where that was open, and of its host.
export interface Asked {
  id: string;
  decisions: Decision[]; // in the order in which they were made; at least one
}

export const last = ({ decisions }: Asked): Decision => decisions[decisions.length - 1] as Decision;

// One entry for each request, the newest first. `wanted` is a part of anything that its row shows.
export function requestsOf(newest: Decision[], wanted: string, name: (node: string) => string): Asked[] {
  const found = new Map<string, Asked>();
  for (const decision of newest) {
    const known = found.get(decision.request_id);
    if (known) known.decisions.unshift(decision);
    else found.set(decision.request_id, { id: decision.request_id, decisions: [decision] });
  }
  const part = wanted.trim().toLowerCase();
  const all = [...found.values()];
  return part === "" ? all : all.filter((asked) => wordsOf(asked, name).toLowerCase().includes(part));
}

function wordsOf(asked: Asked, name: (node: string) => string): string {
  const { model_id, reason, went, picked } = last(asked);
  return [asked.id, model_id, reason, name(went ?? picked), outcomeOf(last(asked)).word].join(" ");
}

// How much an answer was, by its own account: in a few words, the pace first. "" where it said nothing.
export function usageWords({ usage }: Decision): string {
  if (usage === null) return "";
  const { prompt_tokens: prompt, cached_tokens: cached, completion_tokens: made, tokens_per_s: pace } = usage;
  const words = [
    pace === null ? "" : `${pace.toFixed(1)} tokens/s`,
    made ? `${count(made)} tokens` : "",
    prompt ? `${count(cached)} of ${count(prompt)} prompt tokens cached` : "",
  ];
  return words.filter(Boolean).join(" · ");
}

export interface Step {
  at: string; // seconds since it was decided; "" where nobody measured
  what: string;
  tone: Tone;
}

const SETBACKS: Record<string, string> = {
  unreachable: "was not reached",
  lost: "was lost before an answer",
  engine_lost: "lost its engine",
  still: "did not move",
  busy: "had no room",
  not_ready: "was not ready",
  not_admitted: "did not let it in",
  context_too_long: "has too small a context",
  failed: "refused it",
};

// What became of a request, step by step.
export function traceOf({ decisions }: Asked, name: (node: string) => string): Step[] {
  return decisions.flatMap((decision): Step[] => {
    if (decision.model_id === "") return [{ at: "", what: `model ${decision.picked}, by ${decision.reason}`, tone: "quiet" }];
    const { candidates, rejected, reason } = decision;
    const out = rejected.length ? `, ${rejected.length} left out` : "";
    const chosen = `${name(decision.picked) || "nobody"} of ${candidates.length}${out}, by ${reason}`;
    return [{ at: seconds(0), what: chosen, tone: "quiet" }, ...attemptsOf(decision, name), ...endOf(decision, name)];
  });
}

function attemptsOf({ attempts }: Decision, name: (node: string) => string): Step[] {
  return attempts.map(({ candidate, after_s, setback }) => {
    const what = setback === null ? `sent to ${name(candidate)}` : `${name(candidate)} ${SETBACKS[setback] ?? setback}`;
    return { at: seconds(after_s), what, tone: setback === null ? "quiet" : "bad" };
  });
}

function endOf(decision: Decision, name: (node: string) => string): Step[] {
  const steps: Step[] = [];
  const { first_byte_s, ok, went } = decision;
  if (first_byte_s !== null) steps.push({ at: seconds(first_byte_s), what: "first byte", tone: "good" });
  if (ok !== null) {
    const { word, tone } = outcomeOf(decision);
    const what = [`${word}${went ? ` by ${name(went)}` : ""}`, usageWords(decision)].filter(Boolean).join(": ");
    steps.push({ at: "", what, tone });
  }
  return steps;
}
