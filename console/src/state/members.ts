// Questions about the members of the mesh that views ask. Pure.

import type { MemberStatus, StatusDocument } from "../api/contract";
import { duration } from "./format";
import type { Tone } from "./selectors";

const TONES: Record<string, Tone> = { alive: "good", suspect: "busy", dead: "bad" };

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
