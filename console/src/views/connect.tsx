import { address, apiKey } from "../api/client";
import { CodeBlock } from "../parts/code-block";
import { EmptyState } from "../parts/empty-state";
import { snippets } from "../state/snippets";
import { chatModel } from "../state/talking";

export function Connect() {
  const model = chatModel.value;
  const base = address("v1"); // as this browser reached the node, which is what works from here
  return (
    <section class="connect" aria-label="Connect">
      <p class="lead">
        Everything that speaks to OpenAI speaks to this node, at <code>{base}</code>.
      </p>
      {model === "" && (
        <EmptyState title="No model can answer yet">
          <p>The examples below name the default model, which is whatever this node serves first.</p>
        </EmptyState>
      )}
      {snippets(base, model || "default", apiKey() !== "").map(({ title, language, text }) => (
        <article key={title}>
          <h2>{title}</h2>
          <CodeBlock text={text} label={language} />
        </article>
      ))}
    </section>
  );
}
