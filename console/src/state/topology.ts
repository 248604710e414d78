// The mesh as a picture: where each node is drawn and what lies between them. Pure.

import type { MemberStatus, StatusDocument } from "../api/contract";
import { milliseconds } from "./format";
import { memberTone, membersInOrder, serves } from "./members";
import type { Tone } from "./selectors";
import type { Split } from "./splits";

export interface Spot {
  id: string;
  name: string;
  x: number;
  y: number;
  labelTurn: number; // degrees
  isFlipped: boolean; // its name is written towards the middle's other side
  tone: Tone;
  isMe: boolean;
  isHost: boolean; // of the chosen model
  words: string;
}

export interface Line {
  key: string;
  from: Spot;
  to: Spot;
  kind: "link" | "told" | "split"; // connected, known by another's word, parts of one model
  words: string;
}

export interface Picture {
  spots: Spot[];
  lines: Line[];
}

export const WIDTH = 640;
export const HEIGHT = 400;
const RADIUS = 118;
const NAME_CHARS = 16;

// This node in the middle, the others around it in the order of their cards.
export function picture(known: StatusDocument, model: string, split: Split | null): Picture {
  const members = membersInOrder(known);
  const others = members.filter(({ is_me }) => !is_me);
  const spots = new Map<string, Spot>();
  for (const member of members) {
    const at = others.indexOf(member);
    spots.set(member.id, spotOf(member, at < 0 ? null : (at / others.length) * 2 * Math.PI, model));
  }
  const lines = [...links(known, spots), ...splitLines(split, spots)];
  return { spots: [...spots.values()], lines };
}

function spotOf(member: MemberStatus, angle: number | null, model: string): Spot {
  const isLeft = angle !== null && Math.cos(angle) < -1e-9;
  const degrees = angle === null ? 0 : (angle * 180) / Math.PI;
  return {
    id: member.id,
    name: member.name.length > NAME_CHARS ? `${member.name.slice(0, NAME_CHARS - 1)}…` : member.name,
    x: Math.round(WIDTH / 2 + (angle === null ? 0 : RADIUS * Math.cos(angle))),
    y: Math.round(HEIGHT / 2 + (angle === null ? 0 : RADIUS * Math.sin(angle))),
    labelTurn: Math.round(isLeft ? degrees - 180 : degrees),
    isFlipped: isLeft,
    tone: memberTone(member),
    isMe: member.is_me,
    isHost: serves(member, model),
    words: `${member.name}: ${member.state}${member.why ? `, ${member.why}` : ""}`,
  };
}

function links(known: StatusDocument, spots: ReadonlyMap<string, Spot>): Line[] {
  const me = spots.get(known.node.id);
  return known.members.flatMap((member): Line[] => {
    const to = spots.get(member.id);
    if (!to || !me || member.is_me || !["alive", "suspect"].includes(member.state)) return [];
    if (member.connected) {
      const rtt = member.rtt_ms === null ? "" : `, round trip ${milliseconds(member.rtt_ms)}`;
      return [{ key: member.id, from: me, to, kind: "link", words: `connected to ${member.name}${rtt}` }];
    }
    const teller = member.vouched_by === null ? undefined : spots.get(member.vouched_by);
    if (!teller) return [];
    return [{ key: member.id, from: teller, to, kind: "told", words: `${teller.name} tells of ${member.name}` }];
  });
}

function splitLines(split: Split | null, spots: ReadonlyMap<string, Spot>): Line[] {
  const host = split?.shares.find(({ isHost }) => isHost);
  const from = host && spots.get(host.node);
  if (!split || !from) return [];
  return split.shares.flatMap((share): Line[] => {
    const to = spots.get(share.node);
    if (!to || share.isHost) return [];
    return [{ key: `split ${share.node}`, from, to, kind: "split", words: `${share.name} computes ${share.layers} layers` }];
  });
}
