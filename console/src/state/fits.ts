// Where a model could run: each node's memory beside what the model needs. Pure.
//
// An estimate for people: the node that is asked computes exactly, and says no in its own words.

import type { MemberStatus, StatusDocument } from "../api/contract";
import type { ModelRow } from "./rows";
import { memoryOf } from "./members";
import type { Tone } from "./selectors";

const OVERHEAD = 1.15; // a context and buffers beside the weights

export interface NodeFit {
  id: string;
  name: string;
  phase: string; // of the model there; "" for a node without its file
  words: string;
  tone: Tone;
  canLoad: boolean;
}

// Every node that lends memory, those that have the model first.
export function fitsOf({ id, mesh, local }: ModelRow, known: StatusDocument): NodeFit[] {
  const size_bytes = local?.size_bytes || mesh?.size_bytes || 0;
  const phases = new Map(mesh?.nodes.map((one) => [one.id, one.phase]));
  const lenders = known.members.filter(({ state, role }) => state === "alive" && role !== "client");
  const found = lenders.map((member): NodeFit => {
    const phase = phases.get(member.id) ?? "";
    const serves = member.models.some((model) => model.id === id);
    const fit = serves || phase === "ready" ? { words: "runs", tone: "good" as const, fits: false } : fitOf(member, size_bytes);
    return { id: member.id, name: member.name, phase, words: fit.words, tone: fit.tone, canLoad: phase !== "" && fit.fits };
  });
  return found.sort((a, b) => Number(b.phase !== "") - Number(a.phase !== ""));
}

function fitOf(member: MemberStatus, size_bytes: number): { words: string; tone: Tone; fits: boolean } {
  const memory = memoryOf(member);
  if (size_bytes === 0 || memory.total_bytes === 0) return { words: "not known", tone: "quiet", fits: true };
  const needed = size_bytes * OVERHEAD;
  if (needed <= memory.total_bytes - memory.used_bytes) return { words: "fits", tone: "good", fits: true };
  if (needed <= memory.total_bytes) return { words: "fits when others are unloaded", tone: "busy", fits: true };
  return { words: "too large", tone: "quiet", fits: false };
}
