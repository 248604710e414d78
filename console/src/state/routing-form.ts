// The form of a configuration, of routing or of quotas: which fields there are, and what was changed in it. Pure.

import type { RoutingConfig } from "../api/routing";

const STRATEGIES = [
  "round_robin",
  "least_loaded",
  "cache_aware",
  "quota_aware",
  "random",
  "weighted_random",
  "latency_based",
  "affinity_based",
];
const CHOICES: Record<string, string[]> = {
  strategy: STRATEGIES,
  model_strategy: STRATEGIES,
  unknown_model: ["reject", "fallback"],
  on_limit: ["reject", "queue", "warn"],
};
const NOT_EDITED = new Set(["scope", "version"]);

export interface Field {
  key: string;
  kind: "choice" | "truth" | "number" | "text" | "json";
  text: string; // "true" and "false" for a truth
  choices: string[];
}

// One field for each key that the node has, by the kind of its value: a newer node's keys can be edited too.
export function fieldsOf(config: RoutingConfig): Field[] {
  return Object.entries(config)
    .filter(([key]) => !NOT_EDITED.has(key))
    .map(([key, value]) => {
      const known = CHOICES[key];
      if (known && typeof value === "string") {
        return { key, kind: "choice", text: value, choices: known.includes(value) ? known : [...known, value] };
      }
      if (typeof value === "boolean") return { key, kind: "truth", text: String(value), choices: [] };
      if (typeof value === "number") return { key, kind: "number", text: String(value), choices: [] };
      if (value === null || typeof value === "string") return { key, kind: "text", text: value ?? "", choices: [] };
      return { key, kind: "json", text: JSON.stringify(value), choices: [] };
    });
}

// What the node is to be told: only what differs. `texts` are the form's, by key. Throws an Error for a person.
export function changesOf(config: RoutingConfig, texts: Record<string, string>): Record<string, unknown> {
  const changed = fieldsOf(config).filter(({ key, text }) => key in texts && texts[key] !== text);
  return Object.fromEntries(changed.map((field) => [field.key, valueOf(field, (texts[field.key] ?? "").trim())]));
}

function valueOf({ key, kind }: Field, text: string): unknown {
  if (kind === "truth") return text === "true";
  if (text === "") return null; // the node's default
  if (kind === "number") {
    if (!Number.isFinite(Number(text))) throw new Error(`${key} has to be a number`);
    return Number(text);
  }
  if (kind !== "json") return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Error(`${key} has to be JSON`);
  }
}
