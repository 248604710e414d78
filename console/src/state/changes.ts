// Puts what changed into the document that is known. Pure.

import type { StatusChanges, StatusDocument } from "../api/contract";

const AGES = ["uptime_s", "for_s", "heard_s", "ready_for_s"]; // they grow by themselves
const COUNTDOWNS = ["retry_in_s"]; // and these shrink

// All durations of a document count from when the first whole one came; `elapsed_s` is the time since then.
export function changed(known: StatusDocument, changes: StatusChanges, elapsed_s: number): StatusDocument {
  const { facts, entries, order } = changes;
  const found: StatusDocument = {
    ...known,
    ...facts,
    members: merged(known.members, entries.members, order.members, elapsed_s),
    models: merged(known.models, entries.models, order.models, elapsed_s),
    mesh_models: merged(known.mesh_models, entries.mesh_models, order.mesh_models, elapsed_s),
  };
  return facts.node ? { ...found, node: earlier(facts.node, elapsed_s) } : found;
}

function merged<T extends { id: string }>(known: T[], news: T[], order: string[] | null, elapsed_s: number): T[] {
  if (news.length === 0 && order === null) return known;
  const fresh = new Map(news.map((entry) => [entry.id, earlier(entry, elapsed_s)]));
  if (order === null) return known.map((entry) => fresh.get(entry.id) ?? entry);
  const before = new Map(known.map((entry) => [entry.id, entry]));
  return order.map((id) => fresh.get(id) ?? before.get(id)).filter((entry) => entry !== undefined);
}

// An entry with its durations as they would have been so much earlier.
function earlier<T extends object>(entry: T, elapsed_s: number): T {
  const shifted = Object.entries(entry).map(([key, value]: [string, unknown]) => {
    if (typeof value !== "number") return [key, value];
    if (AGES.includes(key)) return [key, value - elapsed_s];
    return [key, COUNTDOWNS.includes(key) ? value + elapsed_s : value];
  });
  return Object.fromEntries(shifted) as T;
}
