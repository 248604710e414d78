// A model that several nodes compute together: who has which part of it. Pure.

import type { StatusDocument } from "../api/contract";
import type { PlannedSplit } from "../api/routing";
import { nodeName } from "./members";

export interface Share {
  node: string;
  name: string;
  layers: number;
  memory_bytes: number;
  part: number; // of all layers, 0 to 1
  isHost: boolean;
}

export interface Split {
  isRunning: boolean;
  words: string; // why it is as it is; "" for one that runs
  shares: Share[];
}

// The split by which a model runs now, as its host tells; else the one that would be, or why there is none.
export function splitOf(known: StatusDocument, model: string, planned: PlannedSplit | null): Split | null {
  if (model === "") return null;
  for (const member of known.members) {
    const split = member.models.find(({ id }) => id === model)?.split;
    if (!split) continue;
    const parts = split.shares.map((share) => ({ ...share, name: nodeName(known, share.node) }));
    return { isRunning: true, words: "", shares: shared(parts, member.id) };
  }
  if (!planned) return null;
  const parts = planned.shares.map(({ candidate, node, layers, memory_bytes }) => ({
    node: candidate,
    name: node || nodeName(known, candidate),
    layers,
    memory_bytes,
  }));
  return { isRunning: planned.runs, words: planned.message, shares: shared(parts, planned.host ?? "") };
}

function shared(parts: Omit<Share, "part" | "isHost">[], host: string): Share[] {
  const all = parts.reduce((sum, { layers }) => sum + layers, 0);
  return parts.map((one) => ({ ...one, part: all ? one.layers / all : 0, isHost: one.node === host }));
}
