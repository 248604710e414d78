import { bytes, percent } from "../state/format";
import type { Split } from "../state/splits";

const WIDTH = 1000;
const TINTS = 4;

// Who computes which part of a model: a bar, and the same in words.
export function SplitShares({ model, split }: { model: string; split: Split }) {
  let from = 0;
  const bars = split.shares.map((share) => {
    const bar = { x: from * WIDTH, width: share.part * WIDTH };
    from += share.part;
    return bar;
  });
  return (
    <section class="panel split" aria-label="Split">
      <h2>
        <span class="model-id">{model}</span> {split.isRunning ? "is divided" : "over several nodes"}
      </h2>
      {split.words && <p class="quiet-line">{split.words}</p>}
      {split.shares.length > 0 && (
        <>
          <svg class="split-bar" viewBox={`0 0 ${WIDTH} 20`} preserveAspectRatio="none" aria-hidden="true">
            {bars.map(({ x, width }, at) => (
              <rect key={at} class={`share-${at % TINTS}`} x={x} width={width} height={20} />
            ))}
          </svg>
          <ul class="shares">
            {split.shares.map((share, at) => (
              <li key={share.node}>
                <span class={`key share-${at % TINTS}`} aria-hidden="true" />
                <strong class="model-id">{share.name}</strong>
                {share.isHost && <span class="tag">host</span>} {share.layers} layers, {percent(share.part)} ·{" "}
                {bytes(share.memory_bytes)}
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
