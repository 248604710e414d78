import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";

import { MOST_PICTURES, pictureOf } from "../state/pictures";
import { ask, chatModel, stopAnswer, takesPictures } from "../state/talking";

export function Composer({ isAnswering }: { isAnswering: boolean }) {
  const text = useSignal("");
  const field = useRef<HTMLTextAreaElement>(null);
  const images = useSignal<string[]>([]);
  const problem = useSignal("");
  const isEmpty = text.value.trim() === "" && images.value.length === 0;
  const canSend = !isEmpty && chatModel.value !== "" && !isAnswering;
  const send = () => {
    if (!canSend) return;
    void ask(text.value, takesPictures.value ? images.value : []);
    text.value = "";
    images.value = [];
    field.current?.focus();
  };
  const take = async (files: Iterable<File>) => {
    problem.value = "";
    try {
      const added = await Promise.all([...files].map(pictureOf));
      images.value = [...images.value, ...added].slice(0, MOST_PICTURES);
    } catch (error) {
      problem.value = error instanceof Error ? error.message : "this picture cannot be read";
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {takesPictures.value && (
        <Pictures images={images.value} problem={problem.value} take={take} clear={() => (images.value = [])} />
      )}
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

interface Chosen {
  images: string[];
  problem: string;
  take: (files: Iterable<File>) => Promise<void>;
  clear: () => void;
}

function Pictures({ images, problem, take, clear }: Chosen) {
  return (
    <div class="pictures">
      <label class="file">
        <span>Pictures</span>
        <input
          type="file"
          accept="image/*"
          multiple
          onChange={(event) => {
            const { currentTarget } = event;
            void take(currentTarget.files ?? []).then(() => (currentTarget.value = ""));
          }}
        />
      </label>
      {images.map((image, index) => (
        <img key={index} src={image} alt={`Picture ${index + 1} to send`} />
      ))}
      {images.length > 0 && (
        <button type="button" class="copy" onClick={clear}>
          Without pictures
        </button>
      )}
      {problem && <span role="alert">{problem}</span>}
    </div>
  );
}
