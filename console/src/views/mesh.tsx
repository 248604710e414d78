import type { MemberStatus, StatusDocument } from "../api/contract";
import { Badge } from "../parts/badge";
import { EmptyState } from "../parts/empty-state";
import { Meter } from "../parts/meter";
import { bytes, milliseconds, percent } from "../state/format";
import {
  hardware,
  memberNote,
  memberTone,
  membersInOrder,
  memoryOf,
  meshMemory,
  meshTitle,
  remedy,
  servedModels,
  serves,
} from "../state/members";
import { age_s, highlighted, status } from "../state/signals";
import { lastNode } from "../state/talking";
import { Join } from "./join";

export function Mesh() {
  const known = status.value;
  if (!known) return <EmptyState title="Connecting to the node…" />;
  return (
    <>
      <Summary known={known} />
      <ul class="nodes" aria-label="Nodes">
        {membersInOrder(known).map((member) => (
          <NodeCard key={member.id} member={member} known={known} />
        ))}
      </ul>
      <Join isAlone={known.members.length < 2} />
    </>
  );
}

function Summary({ known }: { known: StatusDocument }) {
  const sum = meshMemory(known);
  return (
    <section class="machine" aria-label="Mesh">
      <p>
        <strong>{meshTitle(known)}</strong>
        {known.mesh && ` · this node may: ${known.mesh.rights.join(", ") || "nothing"}`}
      </p>
      {sum.gpus > 0 && (
        <Meter label={`VRAM of ${sum.gpus} GPUs`} used={sum.gpu_bytes - sum.gpu_free_bytes} total={sum.gpu_bytes} />
      )}
      {sum.ram_bytes > 0 && <span>{bytes(sum.ram_bytes)} memory on nodes without a GPU</span>}
      <Highlighter known={known} />
    </section>
  );
}

function Highlighter({ known }: { known: StatusDocument }) {
  const models = servedModels(known);
  return (
    <label class="picker">
      <span>Show hosts of</span>
      <select value={highlighted.value} onChange={(event) => (highlighted.value = event.currentTarget.value)}>
        <option value="">no model</option>
        {highlighted.value !== "" && !models.includes(highlighted.value) && (
          <option value={highlighted.value}>{highlighted.value} (nobody)</option>
        )}
        {models.map((id) => (
          <option key={id} value={id}>
            {id}
          </option>
        ))}
      </select>
    </label>
  );
}

function NodeCard({ member, known }: { member: MemberStatus; known: StatusDocument }) {
  const memory = memoryOf(member);
  const note = memberNote(member, known, age_s.value);
  const looks = [
    "node panel",
    member.state,
    serves(member, highlighted.value) ? "hosting" : "",
    lastNode.value !== "" && [member.id, member.name].includes(lastNode.value) ? "answered" : "",
  ];
  return (
    <li class={looks.filter(Boolean).join(" ")} aria-label={member.name}>
      <h2>
        <span class="model-id">{member.name}</span>
        {member.is_me && <span class="tag">this node</span>}
        <Badge tone={memberTone(member)}>{member.state}</Badge>
      </h2>
      <p class="quiet-line" title={member.id}>
        {[member.short, member.role, hardware(member)].join(" · ")}
      </p>
      {memory.total_bytes > 0 && <Meter label={memory.label} used={memory.used_bytes} total={memory.total_bytes} />}
      <p class="quiet-line">{links(member, known)}</p>
      {note && <p class={`why ${memberTone(member)}`}>{note}</p>}
      {remedy(member) && <p class="remedy">{remedy(member)}</p>}
      <ServedModels member={member} />
    </li>
  );
}

function links(member: MemberStatus, known: StatusDocument): string {
  const version = member.is_me ? known.node.version : "";
  const facts = [
    member.rtt_ms === null ? "" : `round trip ${milliseconds(member.rtt_ms)}`,
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
