import { signal } from "@preact/signals";

import type { Decision } from "../api/routing";
import { Badge } from "../parts/badge";
import { EmptyState } from "../parts/empty-state";
import type { Asked } from "../state/decisions";
import { last, outcomeOf, requestsOf, seconds, usageWords } from "../state/decisions";
import { count, percent } from "../state/format";
import { nodeName } from "../state/members";
import { decisions, stats } from "../state/polling";
import { status } from "../state/signals";
import { Candidates, Trace } from "./trace";

const wanted = signal("");
const isOpen = signal<ReadonlySet<string>>(new Set()); // requests whose trace is shown

export function Activity() {
  const { value, problem } = decisions.value;
  return (
    <>
      <Numbers />
      {problem && (
        <p class="notice" role="alert">
          {problem}
        </p>
      )}
      {value && value.decisions.length > 0 && <Table newest={value.decisions} />}
      {value?.decisions.length === 0 && (
        <EmptyState title="No choice was made yet">
          <p>Requests with more than one way to an answer show up here, with what spoke for each way.</p>
        </EmptyState>
      )}
    </>
  );
}

function Numbers() {
  const known = stats.value.value;
  if (!known) return null;
  const facts: [string, string][] = [
    ["Requests", count(known.total_routes)],
    ["Answered", count(known.successful_routes)],
    ["Failed", count(known.failed_routes)],
    ["Fallbacks", count(known.fallback_routes)],
    ["Sessions moved", count(known.affinity_rebinds)],
    ["A choice takes", `${known.avg_routing_time_us.toFixed(0)} µs`],
  ];
  return (
    <dl class="numbers" aria-label="Requests of this node">
      {facts.map(([words, value]) => (
        <div key={words}>
          <dt>{words}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Table({ newest }: { newest: Decision[] }) {
  const found = requestsOf(newest, wanted.value, (node) => nodeName(status.value, node));
  return (
    <>
      <label class="picker">
        <span>Find</span>
        <input
          type="search"
          value={wanted.value}
          placeholder="a model, node, rule or outcome"
          onInput={(event) => (wanted.value = event.currentTarget.value)}
        />
        <span role="status">{count(found.length)} requests</span>
      </label>
      <section class="decisions" aria-label="Newest decisions">
        {found.map((asked) => (
          <Row key={asked.id} asked={asked} />
        ))}
      </section>
    </>
  );
}

function open(id: string, opened: boolean): void {
  const others = [...isOpen.value].filter((other) => other !== id);
  isOpen.value = new Set(opened ? [...others, id] : others);
}

function Row({ asked }: { asked: Asked }) {
  const decision = last(asked);
  const { word, tone } = outcomeOf(decision);
  const host = decision.went ?? decision.picked;
  const taken = decision.candidates.find(({ candidate }) => candidate === host);
  const facts = [
    decision.reason,
    `first byte ${seconds(decision.first_byte_s)}`,
    taken?.queue_wait_s ? `${seconds(taken.queue_wait_s)} to wait` : "",
    usageWords(decision) || (taken?.cache_hit ? `${percent(taken.cache_hit)} likely in its cache` : ""),
    decision.attempts.length > 1 ? `${decision.attempts.length} attempts` : "",
  ];
  return (
    <details
      class="decision panel"
      open={isOpen.value.has(asked.id)}
      onToggle={(event) => open(asked.id, event.currentTarget.open)}
    >
      <summary>
        <Badge tone={tone}>{word}</Badge>
        <span class="model-id">{decision.model_id || "which model?"}</span>
        <span>→ {nodeName(status.value, host) || "nobody"}</span>
        <span class="quiet-line">{facts.filter(Boolean).join(" · ")}</span>
      </summary>
      {isOpen.value.has(asked.id) && (
        <>
          <Trace asked={asked} />
          {asked.decisions.map((one, at) => (
            <Candidates key={at} decision={one} />
          ))}
        </>
      )}
    </details>
  );
}
