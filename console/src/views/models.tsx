import type { StatusDocument } from "../api/contract";
import { EmptyState } from "../parts/empty-state";
import { Meter } from "../parts/meter";
import { count } from "../state/format";
import { modelProblem } from "../state/ordering";
import { node, status } from "../state/signals";
import { ModelTable } from "./model-table";

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
      {known.models.length + known.mesh_models.length === 0 ? <NoModels /> : <ModelTable known={known} />}
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
