import type { MemberStatus, StatusDocument } from "../api/contract";
import { Badge } from "../parts/badge";
import { CopyButton } from "../parts/copy-button";
import { EmptyState } from "../parts/empty-state";
import { bytes, milliseconds, percent } from "../state/format";
import { meshTitle, memberNote, memberTone } from "../state/members";
import { age_s, status } from "../state/signals";

export function Nodes() {
  const known = status.value;
  if (!known) return <EmptyState title="Connecting to the node…" />;
  return (
    <>
      <section class="machine" aria-label="Mesh">
        <p>
          <strong>{meshTitle(known)}</strong>
          {known.mesh && ` · this node may: ${known.mesh.rights.join(", ") || "nothing"}`}
        </p>
      </section>
      <Table known={known} />
      {known.members.length < 2 && <Invitation />}
    </>
  );
}

function Invitation() {
  return (
    <EmptyState title="This node is alone">
      <p>Print a token here, and start mesh-llm with it on another machine:</p>
      <pre>
        <code>mesh-llm token</code>
      </pre>
      <CopyButton text="mesh-llm token" label="Copy the command" />
    </EmptyState>
  );
}

function Table({ known }: { known: StatusDocument }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Nodes">
      <table>
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">State</th>
            <th scope="col">Models</th>
            <th scope="col" class="number">Round trip</th>
            <th scope="col" class="number">Memory</th>
            <th scope="col" class="number">Load</th>
          </tr>
        </thead>
        <tbody>
          {known.members.map((member) => (
            <Row key={member.id} member={member} known={known} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ member, known }: { member: MemberStatus; known: StatusDocument }) {
  const { memory } = member;
  const total = memory.gpu_total_bytes || memory.total_bytes;
  return (
    <tr>
      <th scope="row">
        <span class="model-name">
          <span class="model-id">{member.name}</span>
          {member.is_me && <span class="tag">this node</span>}
        </span>
        <small title={member.id}>{[member.short, member.role].join(" · ")}</small>
      </th>
      <td class="state">
        <Badge tone={memberTone(member)}>{member.state}</Badge>
        <small class={memberTone(member)}>{memberNote(member, known, age_s.value)}</small>
      </td>
      <td data-label="Models">{member.models.map((model) => model.id).join(", ") || "–"}</td>
      <td class="number" data-label="Round trip">{member.rtt_ms === null ? "–" : milliseconds(member.rtt_ms)}</td>
      <td class="number" data-label="Memory" title={memory.gpus ? "of its GPUs" : "of the machine"}>
        {total ? bytes(total) : "–"}
      </td>
      <td class="number" data-label="Load">{member.models.length ? percent(member.load) : "–"}</td>
    </tr>
  );
}
