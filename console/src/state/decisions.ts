// Questions about decisions of routing that views ask. Pure.

import type { Decision } from "../api/routing";
import type { Tone } from "./selectors";

export function outcomeOf({ ok }: Decision): { word: string; tone: Tone } {
  if (ok === null) return { word: "open", tone: "busy" };
  return ok ? { word: "answered", tone: "good" } : { word: "failed", tone: "bad" };
}

export function seconds(value_s: number | null): string {
  if (value_s === null) return "–";
  return value_s < 1 ? `${Math.round(value_s * 1000)} ms` : `${value_s.toFixed(1)} s`;
}
