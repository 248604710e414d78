// What happened in the mesh, told from one document to the next. Pure.

import type { MemberStatus, MeshModel, ServedSplit, StatusDocument } from "../api/contract";
import { nodeName } from "./members";
import type { Tone } from "./selectors";

export interface Happening {
  atMs: number;
  tone: Tone;
  what: string;
  cause: string; // "" where nobody said one
}

const KEPT = 500;
const WORDS: Record<string, [string, Tone]> = {
  alive: ["is back", "good"],
  suspect: ["does not answer", "busy"],
  dead: ["is dead", "bad"],
  left: ["left", "quiet"],
};

// The newest first, so many at most.
export function told(before: Happening[], old: StatusDocument | null, now: StatusDocument, atMs: number): Happening[] {
  if (old === null || old.node.id !== now.node.id) return before;
  const found = [...nodesOf(old, now, atMs), ...splitsIn(old, now, atMs), ...modelsOf(old, now, atMs)];
  return found.length ? [...found.reverse(), ...before].slice(0, KEPT) : before;
}

function nodesOf(old: StatusDocument, now: StatusDocument, atMs: number): Happening[] {
  if (old.members === now.members) return [];
  const known = new Map(old.members.map((member) => [member.id, member]));
  return now.members.flatMap((member) => {
    const earlier = known.get(member.id);
    if (earlier && earlier.state === member.state) return [];
    return [{ atMs, ...nodeWords(earlier, member), cause: member.why }];
  });
}

function nodeWords(earlier: MemberStatus | undefined, member: MemberStatus): { what: string; tone: Tone } {
  if (!earlier && member.state === "alive") return { what: `${member.name} joined`, tone: "good" };
  const [words, tone] = WORDS[member.state] ?? [`is ${member.state}`, "quiet"];
  return { what: `${member.name} ${words}`, tone };
}

// Models that several nodes share: newly, otherwise than before, or not any more. Their hosts say so; what comes and goes
// with its host is told with that.
function splitsIn(old: StatusDocument, now: StatusDocument, atMs: number): Happening[] {
  if (old.members === now.members) return [];
  const [before, after] = [splits(old, now), splits(now, old)];
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((key): Happening[] => {
    const earlier = before.get(key);
    const later = after.get(key);
    if (earlier?.split.epoch === later?.split.epoch) return [];
    const { model, host } = later ?? earlier ?? { model: "", host: "" };
    if (!later) return [{ atMs, tone: "quiet", what: `${model} is not divided any more`, cause: `by ${host}` }];
    const shares = later.split.shares.map(({ node, layers }) => `${nodeName(now, node)} ${layers} layers`);
    return [{ atMs, tone: "busy", what: `${model} is divided${earlier ? " anew" : ""} by ${host}`, cause: shares.join(", ") }];
  });
}

type Divided = { model: string; host: string; split: ServedSplit };

function splits({ members }: StatusDocument, other: StatusDocument): Map<string, Divided> {
  const lives = ({ state }: MemberStatus) => state !== "dead" && state !== "left";
  const alsoThere = new Set(other.members.filter(lives).map(({ id }) => id));
  const found = new Map<string, Divided>();
  for (const member of members) {
    if (!lives(member) || !alsoThere.has(member.id)) continue;
    for (const { id, split } of member.models) {
      if (split) found.set(`${member.id} ${id}`, { model: id, host: member.name, split });
    }
  }
  return found;
}

function modelsOf(old: StatusDocument, now: StatusDocument, atMs: number): Happening[] {
  if (old.mesh_models === now.mesh_models) return [];
  const before = new Map(old.mesh_models.map((model) => [model.id, model]));
  const after = new Map(now.mesh_models.map((model) => [model.id, model]));
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((id) => {
    if (before.get(id) === after.get(id)) return [];
    const earlier = phasesOf(before.get(id));
    const later = phasesOf(after.get(id));
    const nodes = [...new Set([...earlier.keys(), ...later.keys()])];
    const changed = nodes.filter((node) => (earlier.get(node) ?? "unloaded") !== (later.get(node) ?? "unloaded"));
    return changed.map((node) => {
      const phase = later.get(node) ?? "gone";
      return { atMs, tone: toneOf(phase), what: `${id} is ${phase} at ${nodeName(now, node)}`, cause: causeOf(now, id, node) };
    });
  });
}

function phasesOf(model: MeshModel | undefined): Map<string, string> {
  return new Map((model?.nodes ?? []).map(({ id, phase }) => [id, phase]));
}

function toneOf(phase: string): Tone {
  if (phase === "ready") return "good";
  if (phase === "failed" || phase === "retrying") return "bad";
  return ["unloaded", "held", "gone"].includes(phase) ? "quiet" : "busy";
}

function causeOf(now: StatusDocument, model: string, node: string): string {
  if (node !== now.node.id) return now.members.find(({ id, state }) => id === node && state !== "alive")?.why ?? "";
  const own = now.models.find(({ id }) => id === model);
  return own ? own.failure?.message || own.why || own.waiting : "";
}
