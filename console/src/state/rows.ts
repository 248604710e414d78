// The rows of the table of models: what the mesh says of a model, beside what this node says of its own. Pure.

import type { Change } from "../api/orders";
import type { MeshModel, ModelStatus, StatusDocument } from "../api/contract";
import { byName } from "./format";
import { nodeName } from "./members";
import type { Tone } from "./selectors";
import { buttonOf, canUnload, note, tone } from "./selectors";

export interface ModelRow {
  id: string;
  mesh: MeshModel | null; // null for one that only this node knows, such as a dropped one
  local: ModelStatus | null; // null for one that this node does not have
}

export interface Action {
  change: Change;
  words: string;
  question: string; // asked first; "" for what hurts nobody
  at?: string; // the node that is to do it, where it is a chosen one
}

const TONE_OF_WARMTH: Record<string, Tone> = { warm: "good", loading: "busy" };
const RANKS = ["warm", "loading", "cold"];

// Every model, the warm ones first. `wanted` is a part of the name, in any case.
export function modelRows(known: StatusDocument, wanted = ""): ModelRow[] {
  const own = new Map(known.models.map((model) => [model.id, model]));
  const rows: ModelRow[] = known.mesh_models.map((mesh) => ({ id: mesh.id, mesh, local: own.get(mesh.id) ?? null }));
  const listed = new Set(known.mesh_models.map(({ id }) => id));
  rows.push(...known.models.filter(({ id }) => !listed.has(id)).map((local) => ({ id: local.id, mesh: null, local })));
  const part = wanted.trim().toLowerCase();
  const found = part ? rows.filter(({ id }) => id.toLowerCase().includes(part)) : rows;
  return found.sort((a, b) => rank(a) - rank(b) || byName(a.id, b.id));
}

function rank(row: ModelRow): number {
  return RANKS.indexOf(row.mesh?.warmth ?? "cold") >>> 0;
}

// The badge: this node's own phase where it is about something, else what the mesh says.
export function stateOf({ mesh, local }: ModelRow): { word: string; tone: Tone } {
  const isQuiet = local !== null && ["unloaded", "dropped"].includes(local.phase);
  if (local && !(isQuiet && mesh && mesh.warmth !== "cold")) return { word: local.phase, tone: tone(local) };
  const word = mesh?.warmth ?? "cold";
  return { word: mesh?.held && word === "cold" ? "held" : word, tone: TONE_OF_WARMTH[word] ?? "quiet" };
}

// One line below the badge.
export function rowNote({ mesh, local }: ModelRow, sinceDocument_s: number): string {
  const own = local ? note(local, sinceDocument_s) : "";
  return own || (mesh?.warmth === "cold" ? mesh.lack : "");
}

// Where it is: the nodes that serve it, else those that have its file.
export function whereabouts(row: ModelRow, known: StatusDocument): string {
  const nodes = row.mesh?.nodes ?? [];
  const serving = nodes.filter(({ phase }) => !["unloaded", "held", "failed"].includes(phase));
  const shown = (serving.length ? serving : nodes).map(({ id }) => nodeName(known, id));
  if (shown.length === 0) return "–";
  const names = shown.slice(0, 4).join(", ") + (shown.length > 4 ? ` and ${shown.length - 4} more` : "");
  return serving.length ? names : `on the disk of ${names}`;
}

// Whether it could be loaded somewhere, in one word.
export function fit({ mesh, local }: ModelRow): string {
  if (mesh?.warmth === "warm") return "runs";
  if (mesh?.lack || local?.waiting) return "does not fit now";
  return mesh?.nodes.length ? "fits" : "–";
}

// What a person can do about a model, the likeliest first.
export function actionsOf({ id, mesh, local }: ModelRow): Action[] {
  const isWarm = mesh !== null && mesh.warmth !== "cold";
  const first = local && !(isWarm && ["unloaded", "dropped"].includes(local.phase)) ? buttonOf(local) : elsewhere(isWarm);
  const actions: Action[] = first ? [{ ...first, question: first.change === "unload" ? unloadQuestion(id, first.words) : "" }] : [];
  const isAdopted = local?.kind === "adopted";
  if (mesh && !mesh.held && !isAdopted) {
    actions.push({ change: "hold", words: "Hold", question: `Unload ${id}, and let no request load it again?` });
  }
  if (local && canUnload(local) && !isAdopted) {
    actions.push(local.pinned ? { change: "unpin", words: "Unpin", question: "" } : { change: "pin", words: "Pin", question: "" });
    actions.push({ change: "drop", words: "Drop", question: `Withdraw ${id} from this node? Its file stays.` });
  }
  return actions;
}

function elsewhere(isWarm: boolean): { change: "load" | "unload"; words: string } {
  return isWarm ? { change: "unload", words: "Unload" } : { change: "load", words: "Load" };
}

function unloadQuestion(id: string, words: string): string {
  return words === "Cancel" ? "" : `Take ${id} out of memory? A request loads it again.`;
}
