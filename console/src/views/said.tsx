import { CodeBlock } from "../parts/code-block";
import type { Turn } from "../state/conversation";
import { seconds } from "../state/decisions";
import { nodeName } from "../state/members";
import { pieces } from "../state/prose";
import { status } from "../state/signals";
import { askAgain, chatModel } from "../state/talking";

export function Said({ turn, isOpen, isLast }: { turn: Turn; isOpen: boolean; isLast: boolean }) {
  if (turn.role === "user") return <article class="turn user">{turn.content}</article>;
  return (
    <article class="turn assistant" aria-busy={isOpen}>
      {turn.thought && (
        <details class="thought" open={isOpen && turn.content === ""}>
          <summary>Thoughts</summary>
          {turn.thought}
        </details>
      )}
      {pieces(turn.content).map((piece, index) =>
        piece.kind === "code" ? (
          <CodeBlock key={index} text={piece.text} label={piece.language} />
        ) : (
          <p key={index}>{piece.text}</p>
        ),
      )}
      <Ending turn={turn} isOpen={isOpen} />
      {isLast && !isOpen && (
        <button type="button" class="copy" onClick={() => void askAgain()} disabled={chatModel.value === ""}>
          Answer again
        </button>
      )}
    </article>
  );
}

function Ending({ turn, isOpen }: { turn: Turn; isOpen: boolean }) {
  const facts = [turn.model];
  if (turn.node) facts.push(`from ${nodeName(status.value, turn.node)}`);
  if (turn.routedBy) facts.push(`by ${turn.routedBy}`);
  if (turn.firstMs !== null) facts.push(`first word after ${seconds(turn.firstMs / 1000)}`);
  if (turn.tokens) facts.push(`${turn.tokens} tokens`);
  if (turn.tokensPerS) facts.push(`${turn.tokensPerS.toFixed(1)} tokens/s`);
  if (turn.ended === "stopped") facts.push("stopped");
  if (turn.ended === "cut") facts.push("reached its limit of tokens");
  const isWaiting = isOpen && turn.content === "" && turn.thought === "";
  return (
    <footer>
      {turn.ended === "failed" && <strong role="alert">{turn.reason}</strong>}
      {isWaiting ? <span class="waiting">waiting for {turn.model}…</span> : facts.join(" · ")}
    </footer>
  );
}
