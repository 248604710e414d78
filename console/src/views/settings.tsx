import { EmptyState } from "../parts/empty-state";
import { reloadRouting, routing, routingOutcome, saveRouting } from "../state/polling";
import type { Field } from "../state/routing-form";
import { fieldsOf } from "../state/routing-form";

export function Settings() {
  const { value, problem } = routing.value;
  if (!value) {
    return (
      <EmptyState title={problem ? "The node does not say how it routes" : "Asking the node…"}>
        <p>{problem}</p>
      </EmptyState>
    );
  }
  const outcome = routingOutcome.value;
  return (
    <form
      class="settings panel"
      key={JSON.stringify(value)}
      aria-label="Routing"
      onSubmit={(event) => {
        event.preventDefault();
        void saveRouting(textsOf(event.currentTarget));
      }}
    >
      <h2>How requests are routed</h2>
      <p class="quiet-line">
        {value.scope === "node" ? "Chosen for this node alone." : `Chosen for the whole mesh, version ${value.version}.`} An
        emptied field brings the node's default back.
      </p>
      <div class="fields">
        {fieldsOf(value).map((field) => (
          <label key={field.key}>
            <span>{field.key.replaceAll("_", " ")}</span>
            <Input field={field} />
          </label>
        ))}
      </div>
      {outcome && (
        <p class={outcome.isGood ? "good-line" : "notice"} role={outcome.isGood ? "status" : "alert"}>
          {outcome.message}
        </p>
      )}
      <div class="line">
        <button type="submit" class="primary">
          Save
        </button>
        <button type="button" onClick={() => void reloadRouting()}>
          Read again
        </button>
      </div>
    </form>
  );
}

function Input({ field }: { field: Field }) {
  const { key, kind, text, choices } = field;
  if (kind === "choice" || kind === "truth") {
    const options = kind === "truth" ? ["true", "false"] : choices;
    return (
      <select name={key}>
        {options.map((choice) => (
          <option key={choice} value={choice} selected={choice === text}>
            {kind === "truth" ? { true: "yes", false: "no" }[choice] : choice}
          </option>
        ))}
      </select>
    );
  }
  return <input name={key} defaultValue={text} inputMode={kind === "number" ? "decimal" : "text"} spellcheck={false} />;
}

function textsOf(form: HTMLFormElement): Record<string, string> {
  return Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, String(value)]));
}
