import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { EmptyState } from "../parts/empty-state";
import type { Turn } from "../state/conversation";
import { chatModels, STAND_INS } from "../state/selectors";
import { status } from "../state/signals";
import { ask, chatModel, chooseModel, clearTalk, stopAnswer, talk } from "../state/talking";
import { Said } from "./said";

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
  const groups = [
    { label: "Warm", found: models.filter(({ warmth }) => warmth === "warm") },
    { label: "Cold: a request loads it", found: models.filter(({ warmth }) => warmth !== "warm") },
  ].filter(({ found }) => found.length > 0);
  return (
    <label class="picker">
      <span>Model</span>
      <select
        value={chatModel.value}
        disabled={models.length === 0}
        onChange={(event) => chooseModel(event.currentTarget.value)}
      >
        {models.length === 0 && <option value="">none is available</option>}
        {models.length > 0 && (
          <optgroup label="The node chooses">
            {STAND_INS.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </optgroup>
        )}
        {groups.map(({ label, found }) => (
          <optgroup key={label} label={label}>
            {found.map(({ id, warmth }) => (
              <option key={id} value={id}>
                {warmth === "loading" ? `${id} (loading)` : id}
              </option>
            ))}
          </optgroup>
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
          <p>The conversation stays in this browser; the model runs on a node of your mesh.</p>
        </EmptyState>
      </div>
    );
  }
  return (
    <div class="turns" ref={box} onScroll={onScroll} tabIndex={0} role="log" aria-label="Conversation" aria-live="off">
      {turns.map((turn, index) => (
        <Said key={index} turn={turn} isOpen={isAnswering && index === turns.length - 1} isLast={index === turns.length - 1} />
      ))}
    </div>
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
