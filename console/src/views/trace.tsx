import type { Decision } from "../api/routing";
import type { Asked } from "../state/decisions";
import { seconds, traceOf } from "../state/decisions";
import { percent } from "../state/format";
import { nodeName } from "../state/members";
import { status } from "../state/signals";

const named = (node: string) => nodeName(status.value, node);

// What became of a request, step by step.
export function Trace({ asked }: { asked: Asked }) {
  return (
    <ol class="trace" aria-label={`Trace of ${asked.id}`}>
      {traceOf(asked, named).map(({ at, what, tone }, index) => (
        <li key={index} class={tone}>
          <time>{at}</time> {what}
        </li>
      ))}
    </ol>
  );
}

// What spoke for each way that one choice had.
export function Candidates({ decision }: { decision: Decision }) {
  return (
    <>
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
                  {named(one.candidate)}
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
          not {named(candidate)}: {why}
        </p>
      ))}
    </>
  );
}
