// The documents of /routing/config, /routing/stats and /api/explain: meshllm/api/routing.py in TypeScript.

// Keys come and go with versions: the console edits what it finds, by the kind of its value.
export type RoutingConfig = { scope: string; version: number } & Record<string, unknown>;

export interface RoutingStats {
  total_routes: number;
  successful_routes: number;
  failed_routes: number;
  fallback_routes: number;
  affinity_rebinds: number;
  avg_routing_time_us: number;
}

export interface ExplainDocument {
  decisions: Decision[]; // the newest first
}

// The same for `?model=`: also where a request for it would go, and how it would be divided.
export interface ProspectDocument extends ExplainDocument {
  split: PlannedSplit | null; // null for a model that needs none
}

export interface PlannedSplit {
  runs: boolean;
  possible: boolean;
  message: string;
  host: string | null;
  shares: { candidate: string; node: string; is_host: boolean; layers: number; memory_bytes: number }[];
}

export interface Decision {
  request_id: string;
  model_id: string; // "" where the model itself was chosen
  at_s: number; // on the node's own clock: good for order alone
  strategy: string;
  reason: string; // the rule that decided
  picked: string; // a node's id, or a model
  rebound: boolean;
  routing_time_us: number;
  candidates: Candidate[]; // best first
  rejected: { candidate: string; why: string }[];
  went: string | null; // where it was answered; null while it was not
  ok: boolean | null;
  first_byte_s: number | null;
  usage: Usage | null; // null while the answer is not complete, or where it says nothing of itself
  attempts: { candidate: string; after_s: number; setback: string | null }[]; // where it was sent, in order
}

export interface Usage {
  prompt_tokens: number;
  cached_tokens: number; // of the prompt's
  completion_tokens: number;
  tokens_per_s: number | null;
}

export interface Candidate {
  candidate: string;
  score: number;
  load: number;
  cache_hit: number;
  predicted_first_token_s: number;
  queue_wait_s: number;
  first_byte_s: number | null;
  suspect: boolean;
  here: boolean;
  health: string;
}
