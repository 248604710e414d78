import { useEffect, useRef } from "preact/hooks";

import { EmptyState } from "../parts/empty-state";
import type { Turn } from "../state/conversation";
import { titleOf } from "../state/library";
import { chatModels, STAND_INS } from "../state/selectors";
import { status } from "../state/signals";
import { chatModel, chooseModel, exportTalk, forgetTalk, library, newTalk, openTalk, talk } from "../state/talking";
import { Composer } from "./composer";
import { Said } from "./said";

export function Chat() {
  const { turns, isAnswering } = talk.value;
  return (
    <section class="chat" aria-label="Chat">
      <div class="chat-bar">
        <ModelPicker />
        <TalkPicker />
        <div class="line">
          <button type="button" onClick={newTalk} disabled={turns.length === 0}>
            New
          </button>
          <button type="button" onClick={exportTalk} disabled={turns.length === 0}>
            Export
          </button>
          <button type="button" onClick={forgetTalk} disabled={turns.length === 0}>
            Delete
          </button>
        </div>
      </div>
      <Turns turns={turns} isAnswering={isAnswering} />
      <Composer isAnswering={isAnswering} />
    </section>
  );
}

function TalkPicker() {
  const { open, others } = library.value;
  return (
    <label class="picker">
      <span>Conversation</span>
      <select value={open.id} disabled={others.length === 0} onChange={(event) => openTalk(event.currentTarget.value)}>
        <option value={open.id}>{titleOf(open)}</option>
        {others.map((other) => (
          <option key={other.id} value={other.id}>
            {titleOf(other)}
          </option>
        ))}
      </select>
    </label>
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
        <Said key={`${talk.value.id} ${index}`} turn={turn} at={index} isOpen={isAnswering && index === turns.length - 1} isBusy={isAnswering} />
      ))}
    </div>
  );
}
