import { address, apiKey } from "../api/client";
import { CodeBlock } from "../parts/code-block";
import { EmptyState } from "../parts/empty-state";
import { chatModels, contextOf } from "../state/selectors";
import { status } from "../state/signals";
import { snippets } from "../state/snippets";
import { chatModel, chooseModel } from "../state/talking";

const MOST_NAMED = 8; // models in a configuration that lists them

export function Connect() {
  const model = chatModel.value || "default";
  const root = address("").replace(/\/+$/, ""); // as this browser reached the node, which is what works from here
  const known = chatModels(status.value).map(({ id }) => id);
  const models = [model, ...known.filter((id) => id !== model)].slice(0, MOST_NAMED);
  const place = { root, model, models, context_tokens: contextOf(status.value, model), needsKey: apiKey() !== "" };
  return (
    <section class="connect" aria-label="Connect">
      <p class="lead">
        Everything that speaks to OpenAI or Anthropic speaks to this node, at <code>{`${root}/v1`}</code>.
      </p>
      {known.length === 0 && (
        <EmptyState title="No model can answer yet">
          <p>The examples below name the default model, which is whatever this node serves first.</p>
        </EmptyState>
      )}
      {known.length > 0 && (
        <label class="picker">
          <span>Model</span>
          <select value={model} onChange={(event) => chooseModel(event.currentTarget.value)}>
            {[...new Set([model, "default", "auto", ...known])].map((id) => (
              <option key={id} value={id}>
                {id}
              </option>
            ))}
          </select>
        </label>
      )}
      {snippets(place).map(({ title, language, text, hint }) => (
        <article key={title}>
          <h2>{title}</h2>
          {hint && <p class="quiet-line">{hint}</p>}
          <CodeBlock text={text} label={language} />
        </article>
      ))}
    </section>
  );
}
