import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { CodeBlock } from "../parts/code-block";
import { EmptyState } from "../parts/empty-state";
import type { Turn } from "../state/conversation";
import { pieces } from "../state/prose";
import { chatModels } from "../state/selectors";
import { ask, chatModel, chooseModel, clearTalk, status, stopAnswer, talk } from "../state/signals";

export function Chat() {
  const { turns, isAnswering } = talk.value;
  return (
    <section class="chat" aria-label="Chat">
      <div class="chat-bar">
        <ModelPicker />
        <button type="button" onClick={clearTalk} disabled={turns.length === 0}>
          New conversation
        </button>
      </div>
      <Turns turns={turns} isAnswering={isAnswering} />
      <Composer isAnswering={isAnswering} />
    </section>
  );
}

function ModelPicker() {
  const models = chatModels(status.value);
  return (
    <label class="picker">
      <span>Model</span>
      <select
        value={chatModel.value}
        disabled={models.length === 0}
        onChange={(event) => chooseModel(event.currentTarget.value)}
      >
        {models.length === 0 && <option value="">none is available</option>}
        {models.map(({ id, phase }) => (
          <option key={id} value={id}>
            {phase === "ready" ? id : `${id} (${phase})`}
          </option>
        ))}
      </select>
    </label>
  );
}

function Turns({ turns, isAnswering }: { turns: Turn[]; isAnswering: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  // Follows the text only while its end is in sight, so that one can read back during a long answer.
  useEffect(() => {
    if (box.current && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [turns]);
  const onScroll = () => {
    const at = box.current;
    if (at) isAtEnd.current = at.scrollHeight - at.scrollTop - at.clientHeight < 48;
  };
  if (turns.length === 0) {
    return (
      <div class="turns">
        <EmptyState title="Say something">
          <p>The conversation stays in this browser; the model runs on this node.</p>
        </EmptyState>
      </div>
    );
  }
  return (
    <div class="turns" ref={box} onScroll={onScroll} tabIndex={0} role="log" aria-label="Conversation" aria-live="off">
      {turns.map((turn, index) => (
        <Said key={index} turn={turn} isOpen={isAnswering && index === turns.length - 1} />
      ))}
    </div>
  );
}

function Said({ turn, isOpen }: { turn: Turn; isOpen: boolean }) {
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
    </article>
  );
}

function Ending({ turn, isOpen }: { turn: Turn; isOpen: boolean }) {
  const facts = [turn.model];
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

function Composer({ isAnswering }: { isAnswering: boolean }) {
  const text = useSignal("");
  const field = useRef<HTMLTextAreaElement>(null);
  const canSend = text.value.trim() !== "" && chatModel.value !== "" && !isAnswering;
  const send = () => {
    if (!canSend) return;
    void ask(text.value);
    text.value = "";
    field.current?.focus();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        ref={field}
        rows={2}
        value={text.value}
        placeholder="Message"
        aria-label="Message"
        aria-keyshortcuts="Enter"
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send();
          }
          if (event.key === "Escape" && isAnswering) stopAnswer();
        }}
      />
      {isAnswering ? (
        <button type="button" class="stop" onClick={stopAnswer} title="Escape">
          Stop
        </button>
      ) : (
        <button type="submit" class="primary" disabled={!canSend} title="Enter; Shift and Enter for a new line">
          Send
        </button>
      )}
    </form>
  );
}
