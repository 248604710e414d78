import { EmptyState } from "../parts/empty-state";
import { Badge } from "../parts/badge";
import { clockTime } from "../state/format";
import { chooseLog, logModel, logs } from "../state/polling";
import { happenings, status } from "../state/signals";

export function Events() {
  return (
    <>
      <Happenings />
      <Logs />
    </>
  );
}

function Happenings() {
  const found = happenings.value;
  if (found.length === 0) {
    return (
      <EmptyState title="Nothing has happened since this page was opened">
        <p>Nodes that join, die or come back, and models that come and go, are listed here with the cause.</p>
      </EmptyState>
    );
  }
  return (
    <ol class="happenings panel" aria-label="Events" tabIndex={0}>
      {found.map(({ atMs, tone, what, cause }, at) => (
        <li key={`${found.length - at} ${what}`}>
          <time>{clockTime(atMs)}</time>
          <Badge tone={tone}>{what}</Badge>
          <span class="quiet-line">{cause}</span>
        </li>
      ))}
    </ol>
  );
}

function Logs() {
  const { value, problem } = logs.value;
  const own = (status.value?.models ?? []).filter(({ kind }) => kind === "engine");
  return (
    <section class="logs" aria-label="Log">
      <label class="picker">
        <span>Log of</span>
        <select value={logModel.value} onChange={(event) => chooseLog(event.currentTarget.value)}>
          <option value="">the node</option>
          {own.map(({ id }) => (
            <option key={id} value={id}>
              the engine of {id}
            </option>
          ))}
        </select>
      </label>
      {problem && (
        <p class="notice" role="alert">
          {problem}
        </p>
      )}
      {value !== null && (
        <pre class="log" tabIndex={0}>
          <code>{value || "no lines yet"}</code>
        </pre>
      )}
    </section>
  );
}
