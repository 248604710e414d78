import type { ModelStatus, StatusDocument } from "../api/contract";
import { Badge } from "../parts/badge";
import { EmptyState } from "../parts/empty-state";
import { Meter } from "../parts/meter";
import { bytes, count, parameters, tokens } from "../state/format";
import { buttonOf, note, tone } from "../state/selectors";
import { age_s, asking, changeModel, modelProblem, node, status } from "../state/signals";

export function Models() {
  const known = status.value;
  if (!known) return <Waiting />;
  return (
    <>
      <Machine known={known} />
      {known.engine_failure && <Notice title="No model can run here">{known.engine_failure.message}</Notice>}
      {known.unresolved.map(({ name, message }) => (
        <Notice key={name} title={name}>
          {message}
        </Notice>
      ))}
      {modelProblem.value && <Notice title={modelProblem.value.model}>{modelProblem.value.message}</Notice>}
      {known.models.length === 0 ? <NoModels /> : <Table known={known} />}
      <Problems known={known} />
    </>
  );
}

function Waiting() {
  const { connection, reason } = node.value;
  return connection === "lost" ? (
    <EmptyState title="The node does not answer">
      <p>{reason}. The console keeps trying and shows the node as soon as it is back.</p>
    </EmptyState>
  ) : (
    <EmptyState title="Connecting to the node…" />
  );
}

function NoModels() {
  return (
    <EmptyState title="No models yet">
      <p>Get a small one that runs anywhere, about 98 MB:</p>
      <pre>
        <code>mesh-llm pull smollm2-135m</code>
      </pre>
      <p>Or put GGUF files into ~/.models: they show up here by themselves.</p>
    </EmptyState>
  );
}

function Machine({ known }: { known: StatusDocument }) {
  const { machine, engine } = known;
  if (!machine) return null;
  const used = machine.memory_total_bytes - machine.memory_free_bytes;
  return (
    <section class="machine" aria-label="Machine">
      <Meter label="Memory" used={used} total={machine.memory_total_bytes} />
      {machine.gpus.map((gpu) => (
        <Meter key={gpu.name} label={gpu.name} used={gpu.total_bytes - gpu.free_bytes} total={gpu.total_bytes} />
      ))}
      <p>
        {machine.gpus.length === 0 && <span title={machine.gpu_problem ?? ""}>no GPU · </span>}
        {count(machine.cores)} cores
        {engine && ` · ${engine.kind} ${engine.version}${engine.uses_gpu ? " on GPU" : " on CPU"}`}
      </p>
    </section>
  );
}

function Table({ known }: { known: StatusDocument }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Models">
      <table>
        <thead>
          <tr>
            <th scope="col">Model</th>
            <th scope="col">State</th>
            <th scope="col" class="number">Context</th>
            <th scope="col" class="number">Slots</th>
            <th scope="col" class="number">Size</th>
            <th scope="col" class="number">Requests</th>
            <th scope="col">
              <span class="unseen">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {known.models.map((model) => (
            <Row key={model.id} model={model} isDefault={model.id === known.default_model} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ model, isDefault }: { model: ModelStatus; isDefault: boolean }) {
  const kind = [model.architecture, parameters(model.parameters), model.quantization].filter(Boolean).join(" · ");
  const context = model.context_tokens || model.train_context_tokens;
  return (
    <tr>
      <th scope="row">
        <span class="model-name">
          <span class="model-id">{model.id}</span>
          {isDefault && <span class="tag">default</span>}
        </span>
        <small>{[kind, ...model.aliases].filter(Boolean).join(" · ")}</small>
      </th>
      <td class="state">
        <Badge tone={tone(model)}>{model.phase}</Badge>
        {model.progress && <progress value={model.progress.share} aria-label={`${model.id}: ${model.progress.stage}`} />}
        <small class={tone(model)}>{note(model, age_s.value)}</small>
      </td>
      <td class="number" data-label="Context" title={`trained with ${count(model.train_context_tokens)} tokens`}>
        {context ? tokens(context) : "–"}
      </td>
      <td class="number" data-label="Slots">{model.slots ? `${model.in_flight} of ${model.slots}` : "–"}</td>
      <td class="number" data-label="Size" title={model.memory_bytes ? `${bytes(model.memory_bytes)} in memory` : ""}>
        {model.size_bytes ? bytes(model.size_bytes) : "–"}
      </td>
      <td class="number" data-label="Requests">{count(model.requests)}</td>
      <td class="actions">
        <Actions model={model} />
      </td>
    </tr>
  );
}

function Actions({ model }: { model: ModelStatus }) {
  const isBusy = asking.value.has(model.id) || node.value.connection !== "live";
  const button = buttonOf(model);
  if (!button) return null;
  return (
    <button
      type="button"
      disabled={isBusy}
      aria-label={`${button.words}: ${model.id}`}
      onClick={() => void changeModel(model.id, button.change)}
    >
      {button.words}
    </button>
  );
}

function Problems({ known }: { known: StatusDocument }) {
  if (known.problems.length === 0) return null;
  return (
    <details class="problems">
      <summary>
        {known.problems.length === 1 ? "One file" : `${known.problems.length} files`} could not be used
      </summary>
      <ul>
        {known.problems.map(({ path, message }) => (
          <li key={path}>
            <code>{path}</code> {message}
          </li>
        ))}
      </ul>
    </details>
  );
}

function Notice({ title, children }: { title: string; children: string }) {
  return (
    <p class="notice" role="alert">
      <strong>{title}</strong> {children}
    </p>
  );
}
