// How fast downloads are, from one document to the next. Pure.

import type { StatusDocument } from "../api/contract";
import { bytes, duration } from "./format";

export interface Pace {
  fromBytes: number;
  fromMs: number; // when the download was first seen with these bytes
  doneBytes: number;
  atMs: number;
}

const SHORTEST_MS = 1000; // before that the speed is a guess

export function paced(before: ReadonlyMap<string, Pace>, { models }: StatusDocument, atMs: number): Map<string, Pace> {
  const found = new Map<string, Pace>();
  for (const { id, progress } of models) {
    if (progress?.stage !== "downloading" || !progress.total_bytes) continue;
    const { done_bytes: doneBytes } = progress;
    const known = before.get(id);
    const isSame = known !== undefined && doneBytes >= known.doneBytes; // else it began anew
    const from = isSame ? known : { fromBytes: doneBytes, fromMs: atMs };
    found.set(id, { fromBytes: from.fromBytes, fromMs: from.fromMs, doneBytes, atMs });
  }
  return found;
}

// "4.0 MiB/s · 14 s left"; "" while nobody can know.
export function paceWords(pace: Pace | undefined, totalBytes: number): string {
  if (!pace || pace.atMs - pace.fromMs < SHORTEST_MS || pace.doneBytes <= pace.fromBytes) return "";
  const perS = ((pace.doneBytes - pace.fromBytes) * 1000) / (pace.atMs - pace.fromMs);
  return `${bytes(perS)}/s · ${duration((totalBytes - pace.doneBytes) / perS)} left`;
}
