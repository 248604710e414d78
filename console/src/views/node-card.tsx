import { useMemo } from "preact/hooks";

import type { MemberStatus, StatusDocument } from "../api/contract";
import { Badge } from "../parts/badge";
import { Meter } from "../parts/meter";
import { milliseconds, percent } from "../state/format";
import { hardware, lentWords, memberNote, memberTone, memoryOf, remedy, serves } from "../state/members";
import { age_s, highlighted } from "../state/signals";
import { lastNode } from "../state/talking";

// Drawn anew only when something in it changed: a mesh has many, and hears of one at a time.
export function NodeCard({ member, known }: { member: MemberStatus; known: StatusDocument }) {
  const note = memberNote(member, known, member.state === "alive" ? 0 : age_s.value);
  const version = member.is_me ? known.node.version : "";
  const isHost = serves(member, highlighted.value);
  const isLast = lastNode.value !== "" && [member.id, member.name].includes(lastNode.value);
  const looks = ["node panel", member.state, isHost ? "hosting" : "", isLast ? "answered" : ""].filter(Boolean).join(" ");
  const lent = lentWords(member, known);
  return useMemo(() => <Card {...{ member, note, version, looks, lent }} />, [member, note, version, looks, lent.join()]);
}

interface Shown {
  member: MemberStatus;
  note: string;
  version: string;
  looks: string;
  lent: string[];
}

function Card({ member, note, version, looks, lent }: Shown) {
  const memory = memoryOf(member);
  return (
    <li class={looks} aria-label={member.name}>
      <h2>
        <span class="model-id">{member.name}</span>
        {member.is_me && <span class="tag">this node</span>}
        <Badge tone={memberTone(member)}>{member.state}</Badge>
      </h2>
      <p class="quiet-line" title={member.id}>
        {[member.short, member.role, hardware(member)].join(" · ")}
      </p>
      {memory.total_bytes > 0 && <Meter label={memory.label} used={memory.used_bytes} total={memory.total_bytes} />}
      <p class="quiet-line">{links(member, version)}</p>
      {note && <p class={`why ${memberTone(member)}`}>{note}</p>}
      {remedy(member) && <p class="remedy">{remedy(member)}</p>}
      {lent.map((words) => (
        <p key={words} class="quiet-line">
          {words}
        </p>
      ))}
      <ServedModels member={member} />
    </li>
  );
}

function links(member: MemberStatus, version: string): string {
  const facts = [
    member.rtt_ms === null ? "" : `round trip ${milliseconds(member.rtt_ms)}`,
    member.lines > 0 ? `lines ${member.lines}` : "",
    member.models.length ? `load ${percent(member.load)}` : "",
    version ? `version ${version}` : `protocol ${member.protocol}`,
    member.engine_build,
  ];
  return facts.filter(Boolean).join(" · ");
}

function ServedModels({ member }: { member: MemberStatus }) {
  if (member.models.length === 0) return null;
  return (
    <ul class="chips" aria-label={`Models of ${member.name}`}>
      {member.models.map(({ id, state }) => (
        <li key={id}>
          <button
            type="button"
            class={`chip ${state}`}
            aria-pressed={highlighted.value === id}
            onClick={() => (highlighted.value = highlighted.value === id ? "" : id)}
          >
            {state === "ready" ? id : `${id} (${state})`}
          </button>
        </li>
      ))}
    </ul>
  );
}
