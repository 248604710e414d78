import type { ComponentChildren } from "preact";

import type { Field } from "../state/routing-form";

interface Shown {
  title: string;
  label: string;
  fields: Field[];
  outcome: { isGood: boolean; message: string } | null;
  onSave: (texts: Record<string, string>) => void;
  onReload: () => void;
  children: ComponentChildren;
}

// A form of whatever keys a configuration has.
export function ConfigForm({ title, label, fields, outcome, onSave, onReload, children }: Shown) {
  return (
    <form
      class="settings panel"
      aria-label={label}
      onSubmit={(event) => {
        event.preventDefault();
        onSave(textsOf(event.currentTarget));
      }}
    >
      <h2>{title}</h2>
      {children}
      <div class="fields">
        {fields.map((field) => (
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
        <button type="button" onClick={onReload}>
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
