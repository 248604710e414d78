// Questions about the node's state that views ask. Pure.

import type { MeshModel, ModelStatus, StatusDocument } from "../api/contract";
import { byName, bytes, duration, percent } from "./format";
import type { NodeState } from "./store";

export type Tone = "good" | "busy" | "bad" | "quiet";

const TONES: Record<string, Tone> = {
  ready: "good",
  queued: "busy",
  downloading: "busy",
  loading: "busy",
  draining: "busy",
  stopping: "busy",
  retrying: "bad",
  failed: "bad",
};

export function tone(model: ModelStatus): Tone {
  return TONES[model.phase] ?? "quiet";
}

// One line below the badge: the most useful thing to know about a model that does not simply run.
export function note(model: ModelStatus, sinceDocument_s = 0): string {
  if (model.failure && tone(model) === "bad") {
    const retryIn_s = model.retry_in_s === null ? null : model.retry_in_s - sinceDocument_s;
    return retryIn_s === null ? model.failure.message : `${model.failure.message} · again in ${duration(retryIn_s)}`;
  }
  if (model.progress) return progressNote(model.progress);
  if (model.waiting) return model.waiting;
  if (model.ready_for_s !== null && model.phase === "ready") return `for ${duration(model.ready_for_s + sinceDocument_s)}`;
  return "";
}

function progressNote(progress: NonNullable<ModelStatus["progress"]>): string {
  if (!progress.total_bytes) return percent(progress.share);
  return `${percent(progress.share)} · ${bytes(progress.done_bytes)} of ${bytes(progress.total_bytes)}`;
}

export function canUnload(model: ModelStatus): boolean {
  return ["queued", "downloading", "loading", "ready", "retrying"].includes(model.phase);
}

export function canLoad(model: ModelStatus): boolean {
  return ["unloaded", "held", "dropped", "failed"].includes(model.phase);
}

// What a person can do about a model: one thing or nothing, in the words that fit its phase.
export function buttonOf(model: ModelStatus): { change: "load" | "unload"; words: string } | null {
  if (canLoad(model)) return { change: "load", words: model.phase === "failed" ? "Try again" : "Load" };
  if (canUnload(model)) return { change: "unload", words: model.phase === "ready" ? "Unload" : "Cancel" };
  return null;
}

// Names that always work: the node decides what they stand for.
export const STAND_INS = ["default", "auto"] as const;

// Models of the mesh that can be talked to: warm ones first, then those that a request would load.
export function chatModels(status: StatusDocument | null): MeshModel[] {
  if (!status) return [];
  const known = talkers.get(status.mesh_models);
  if (known) return known;
  const able = status.mesh_models.filter((model) => !model.held && canChat(model) && !hasFailed(model));
  able.sort((a, b) => rank(a) - rank(b) || byName(a.id, b.id));
  talkers.set(status.mesh_models, able);
  return able;
}

const talkers = new WeakMap<MeshModel[], MeshModel[]>(); // many ask, and of a thousand models it takes a while

function rank(model: MeshModel): number {
  return ["warm", "loading"].indexOf(model.warmth) >>> 0; // whatever else comes last
}

function canChat(model: MeshModel): boolean {
  const able = model.capabilities; // none: not known yet
  return able.length === 0 || able.includes("chat") || able.includes("completion");
}

function hasFailed(model: MeshModel): boolean {
  return model.nodes.length > 0 && model.nodes.every(({ phase }) => phase === "failed");
}

// Whether a model takes pictures; a name for whatever the node chooses takes them where any model does.
export function canSee(status: StatusDocument | null, model: string): boolean {
  const seeing = chatModels(status).filter(({ capabilities }) => capabilities.includes("vision"));
  if (model === "auto") return seeing.length > 0;
  return seeing.some(({ id }) => id === (model === "default" ? status?.default_model : model));
}

// The context of a model, in tokens, at the host that has the largest; 0 while nobody serves it.
export function contextOf(status: StatusDocument | null, model: string): number {
  const id = model === "default" ? status?.default_model : model;
  const served = (status?.members ?? []).flatMap(({ models }) => models.filter((one) => one.id === id));
  return Math.max(0, ...served.map(({ context_tokens }) => context_tokens));
}

// The model to use where nobody chose one.
export function preferredModel(status: StatusDocument | null, chosen: string): string {
  const able = chatModels(status).map((model) => model.id);
  if (able.includes(chosen) || (able.length > 0 && STAND_INS.some((name) => name === chosen))) return chosen;
  const byDefault = status?.default_model ?? "";
  return able.includes(byDefault) ? byDefault : (able[0] ?? "");
}

// How old the document is, for durations that go on: they stand still while the node is gone.
export function sinceDocument_s(state: NodeState, nowMs: number): number {
  const until = state.connection === "live" ? nowMs : (state.aliveAtMs ?? nowMs);
  return Math.max(0, (until - state.documentAtMs) / 1000);
}

// Seconds since the node's last sign of life, once that is worth a word; null while all is well.
export function staleForS(state: NodeState, nowMs: number): number | null {
  if (state.connection === "live" || state.aliveAtMs === null) return null;
  return Math.max(0, Math.round((nowMs - state.aliveAtMs) / 1000));
}
