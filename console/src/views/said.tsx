import { useSignal } from "@preact/signals";

import { CodeBlock } from "../parts/code-block";
import { CopyButton } from "../parts/copy-button";
import type { Turn } from "../state/conversation";
import { seconds } from "../state/decisions";
import { nodeName } from "../state/members";
import { pieces } from "../state/prose";
import { status } from "../state/signals";
import { askAgain, askOtherwise, chatModel } from "../state/talking";

export function Said({ turn, at, isOpen, isBusy }: { turn: Turn; at: number; isOpen: boolean; isBusy: boolean }) {
  if (turn.role === "user") return <Question turn={turn} at={at} isBusy={isBusy} />;
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
      {!isOpen && (
        <div class="line">
          <button type="button" class="copy" onClick={() => void askAgain(at)} disabled={isBusy || chatModel.value === ""}>
            Answer again
          </button>
          {turn.content && <CopyButton text={turn.content} label="Copy the answer" />}
        </div>
      )}
    </article>
  );
}

function Question({ turn, at, isBusy }: { turn: Turn; at: number; isBusy: boolean }) {
  const draft = useSignal<string | null>(null);
  if (draft.value !== null) return <Edited draft={draft.value} at={at} onEnd={() => (draft.value = null)} />;
  return (
    <>
      <article class="turn user">
        {turn.images.map((image, index) => (
          <img key={index} src={image} alt={`Picture ${index + 1}`} />
        ))}
        {turn.content}
      </article>
      <button type="button" class="copy edit" disabled={isBusy} onClick={() => (draft.value = turn.content)}>
        Edit
      </button>
    </>
  );
}

function Edited({ draft, at, onEnd }: { draft: string; at: number; onEnd: () => void }) {
  return (
    <form
      class="edited"
      onSubmit={(event) => {
        event.preventDefault();
        const text = String(new FormData(event.currentTarget).get("text") ?? "");
        onEnd();
        void askOtherwise(at, text);
      }}
      onKeyDown={(event) => event.key === "Escape" && onEnd()}
    >
      <textarea name="text" rows={3} aria-label="Edited message" defaultValue={draft} autofocus />
      <div class="line">
        <button type="submit" class="primary" disabled={chatModel.value === ""}>
          Ask this instead
        </button>
        <button type="button" onClick={onEnd}>
          Leave it
        </button>
      </div>
    </form>
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
