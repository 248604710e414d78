// Questions about the members of the mesh that views ask. Pure.

import type { MemberStatus, StatusDocument } from "../api/contract";
import { bytes, duration } from "./format";
import type { Tone } from "./selectors";

const TONES: Record<string, Tone> = { alive: "good", suspect: "busy" }; // the dead and those that left are grey

export function memberTone(member: MemberStatus): Tone {
  return TONES[member.state] ?? "quiet";
}

// One line below the badge: why a member is not reached, or how this node knows of it.
export function memberNote(member: MemberStatus, known: StatusDocument, sinceDocument_s = 0): string {
  if (member.is_me) return "";
  if (member.state !== "alive") {
    const since = `for ${duration(member.for_s + sinceDocument_s)}`;
    return member.why ? `${member.why} · ${since}` : since;
  }
  if (member.connected) return "connected";
  const teller = known.members.find((other) => other.id === member.vouched_by);
  return member.vouched_by ? `told of by ${teller?.name ?? member.vouched_by.slice(0, 8)}` : "";
}

export function meshTitle(known: StatusDocument): string {
  const alive = known.members.filter((member) => member.state === "alive").length;
  const missing = known.members.length - alive;
  const nodes = `${alive} ${alive === 1 ? "node" : "nodes"}${missing ? `, ${missing} not reached` : ""}`;
  if (!known.mesh) return nodes;
  return `Mesh ${known.mesh.name || known.mesh.id.slice(0, 8)}: ${nodes}`;
}

// What a person can do about a member that is not reached; "" where nothing is wrong.
export function remedy(member: MemberStatus): string {
  if (member.is_me || member.state === "alive") return "";
  if (member.state === "left") return "It left on purpose; start mesh-llm there to have it back.";
  if (/no way from here/.test(member.why)) return "Another node reaches it: look at the firewall between here and there.";
  if (/refused/.test(member.why)) return "Its machine is up, its mesh-llm is not: start it there.";
  if (member.state === "suspect") return "It may come back by itself; else look whether that machine is awake and online.";
  return "Look whether that machine is on and online, and run mesh-llm status there.";
}

const ATTENTION = ["suspect", "dead", "alive", "left"];

// This node first, then those that want attention: in a mesh of fifty nobody looks for them at the end.
export function membersInOrder(known: StatusDocument): MemberStatus[] {
  const rank = (member: MemberStatus) => (member.is_me ? -1 : ATTENTION.indexOf(member.state) >>> 0);
  return [...known.members].sort((a, b) => rank(a) - rank(b)); // within a state as the node orders them
}

export interface MeshMemory {
  gpu_bytes: number; // of all GPUs
  gpu_free_bytes: number;
  gpus: number;
  ram_bytes: number; // of nodes that have no GPU to compute with
  nodes: number; // that lend something
}

// What the mesh has for models, over the nodes that are reached. Clients lend nothing.
export function meshMemory(known: StatusDocument): MeshMemory {
  const sum: MeshMemory = { gpu_bytes: 0, gpu_free_bytes: 0, gpus: 0, ram_bytes: 0, nodes: 0 };
  for (const { state, role, memory } of known.members) {
    if (state !== "alive" || role === "client") continue;
    sum.nodes += 1;
    sum.gpus += memory.gpus;
    sum.gpu_bytes += memory.gpu_total_bytes;
    sum.gpu_free_bytes += memory.gpu_free_bytes;
    if (memory.gpus === 0) sum.ram_bytes += memory.total_bytes;
  }
  return sum;
}

// The memory that decides what fits on a node: that of its GPUs, else that of the machine.
export function memoryOf({ memory }: MemberStatus): { label: string; used_bytes: number; total_bytes: number } {
  const isGpu = memory.gpu_total_bytes > 0;
  const total = isGpu ? memory.gpu_total_bytes : memory.total_bytes;
  const free = isGpu ? memory.gpu_free_bytes : memory.free_bytes;
  return { label: isGpu ? "VRAM" : "Memory", used_bytes: Math.max(0, total - free), total_bytes: total };
}

export function hardware({ hardware: found, role }: MemberStatus): string {
  if (role === "client") return "client: lends nothing";
  const gpus = found.gpus.length ? found.gpus.join(", ") : "no GPU";
  return found.cores ? `${gpus} · ${found.cores} cores` : "not measured yet";
}

// What a node lends to the hosts of models that it holds a part of.
export function lentWords(member: MemberStatus, known: StatusDocument): string[] {
  return member.lends.map(({ model, host, memory_bytes }) => `lends ${bytes(memory_bytes)} to ${nodeName(known, host)} for ${model}`);
}

export function serves(member: MemberStatus, model: string): boolean {
  return model !== "" && member.state !== "dead" && member.models.some(({ id }) => id === model);
}

// Every model that a member serves, once, sorted: what can be highlighted.
export function servedModels(known: StatusDocument): string[] {
  return [...new Set(known.members.flatMap((member) => member.models.map(({ id }) => id)))].sort();
}

export function nodeName(known: StatusDocument | null, id: string): string {
  return known?.members.find((member) => member.id === id)?.name ?? (id.length > 20 ? id.slice(0, 8) : id);
}
