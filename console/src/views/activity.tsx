import type { Decision } from "../api/routing";
import { Badge } from "../parts/badge";
import { EmptyState } from "../parts/empty-state";
import { outcomeOf, seconds } from "../state/decisions";
import { count, percent } from "../state/format";
import { nodeName } from "../state/members";
import { decisions, stats } from "../state/polling";
import { status } from "../state/signals";

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
  return (
    <section class="decisions" aria-label="Newest decisions">
      {newest.map((decision, at) => (
        <Row key={`${decision.request_id} ${decision.at_s} ${at}`} decision={decision} />
      ))}
    </section>
  );
}

function Row({ decision }: { decision: Decision }) {
  const { word, tone } = outcomeOf(decision);
  const known = status.value;
  const went = decision.went ?? decision.picked;
  return (
    <details class="decision panel">
      <summary>
        <Badge tone={tone}>{word}</Badge>
        <span class="model-id">{decision.model_id || "which model?"}</span>
        <span>→ {nodeName(known, went) || "nobody"}</span>
        <span class="quiet-line">
          {decision.reason} · first byte {seconds(decision.first_byte_s)}
        </span>
      </summary>
      <p class="quiet-line">
        request {decision.request_id} · strategy {decision.strategy} · chosen in {decision.routing_time_us.toFixed(0)} µs
        {decision.rebound && " · its session was elsewhere before"}
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-label={`Candidates for ${decision.request_id}`}>
        <table>
          <thead>
            <tr>
              <th scope="col">Candidate</th>
              <th scope="col" class="number">Score</th>
              <th scope="col" class="number">Load</th>
              <th scope="col" class="number">In its cache</th>
              <th scope="col" class="number">Wait</th>
              <th scope="col">Health</th>
            </tr>
          </thead>
          <tbody>
            {decision.candidates.map((one) => (
              <tr key={one.candidate}>
                <th scope="row" title={one.candidate}>
                  {nodeName(known, one.candidate)}
                </th>
                <td class="number" data-label="Score">{one.score.toFixed(3)}</td>
                <td class="number" data-label="Load">{percent(one.load)}</td>
                <td class="number" data-label="In its cache">{percent(one.cache_hit)}</td>
                <td class="number" data-label="Wait">{seconds(one.queue_wait_s)}</td>
                <td data-label="Health">{one.suspect ? `${one.health}, did not answer lately` : one.health}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {decision.rejected.map(({ candidate, why }) => (
        <p key={candidate} class="quiet-line">
          not {nodeName(known, candidate)}: {why}
        </p>
      ))}
    </details>
  );
}
