import { EmptyState } from "../parts/empty-state";
import { reloadRouting, routing, routingOutcome, saveRouting } from "../state/polling";
import { fieldsOf } from "../state/routing-form";
import { ConfigForm } from "./config-form";
import { Quotas } from "./quotas";

export function Settings() {
  return (
    <>
      <Routing />
      <Quotas />
    </>
  );
}

function Routing() {
  const { value, problem } = routing.value;
  if (!value) {
    return (
      <EmptyState title={problem ? "The node does not say how it routes" : "Asking the node…"}>
        <p>{problem}</p>
      </EmptyState>
    );
  }
  return (
    <ConfigForm
      key={JSON.stringify(value)}
      title="How requests are routed"
      label="Routing"
      fields={fieldsOf(value)}
      outcome={routingOutcome.value}
      onSave={(texts) => void saveRouting(texts)}
      onReload={() => void reloadRouting()}
    >
      <p class="quiet-line">
        {value.scope === "node" ? "Chosen for this node alone." : `Chosen for the whole mesh, version ${value.version}.`} An
        emptied field brings the node's default back.
      </p>
    </ConfigForm>
  );
}
