import { useMemo } from "preact/hooks";

import type { StatusDocument } from "../api/contract";
import { EmptyState } from "../parts/empty-state";
import { Meter } from "../parts/meter";
import { bytes } from "../state/format";
import { membersInOrder, meshMemory, meshTitle, servedModels } from "../state/members";
import { plannedSplit } from "../state/polling";
import { highlighted, status } from "../state/signals";
import { splitOf } from "../state/splits";
import { Join } from "./join";
import { MeshMap } from "./mesh-map";
import { NodeCard } from "./node-card";
import { SplitShares } from "./split-shares";

export function Mesh() {
  const known = status.value;
  if (!known) return <EmptyState title="Connecting to the node…" />;
  const model = highlighted.value;
  const planned = plannedSplit.value.value;
  const split = splitOf(known, model, planned?.model === model ? planned.split : null);
  return (
    <>
      <Summary known={known} />
      {known.members.length > 1 && <MeshMap known={known} model={model} split={split} />}
      {split && <SplitShares model={model} split={split} />}
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
  const chosen = highlighted.value;
  const names = chosen === "" || models.includes(chosen) ? models : [chosen, ...models];
  const choices = useMemo(() => names.map((id) => <option key={id}>{id}</option>), [names.join("\n")]);
  return (
    <label class="picker">
      <span>Show hosts of</span>
      <select value={chosen} onChange={(event) => (highlighted.value = event.currentTarget.value)}>
        <option value="">no model</option>
        {choices}
      </select>
      {chosen !== "" && !models.includes(chosen) && <span>nobody serves it</span>}
    </label>
  );
}
