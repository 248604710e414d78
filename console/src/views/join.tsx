import { CopyButton } from "../parts/copy-button";
import { QrPicture } from "../parts/qr-picture";
import { invitation, invite, showToken } from "../state/ordering";

const HIDDEN = "••••••••••••";

export function Join({ isAlone }: { isAlone: boolean }) {
  const { token, isShown, isAsking, problem } = invitation.value;
  return (
    <section class="join panel" aria-label="Join">
      <h2>{isAlone ? "This node is alone: invite another machine" : "Invite another machine"}</h2>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          void invite(String(new FormData(event.currentTarget).get("rights") ?? "own"));
        }}
      >
        <label class="picker">
          <span>It is</span>
          <select name="rights">
            <option value="own">a machine of mine</option>
            <option value="guest">a guest's, which may serve models</option>
            <option value="client">a client, which only asks</option>
          </select>
        </label>
        <button type="submit" class="primary" disabled={isAsking}>
          Make a token
        </button>
      </form>
      {problem && (
        <p class="notice" role="alert">
          {problem}
        </p>
      )}
      {token && (
        <>
          <p>Start mesh-llm with it on that machine. Who has the token can join: give it to nobody else.</p>
          <pre class="command" tabIndex={0}>
            <code>{`mesh-llm --join ${isShown ? token : HIDDEN}`}</code>
          </pre>
          <div class="line">
            <CopyButton text={`mesh-llm --join ${token}`} label="Copy the join command" />
            <button type="button" class="copy" aria-pressed={isShown} onClick={() => showToken(!isShown)}>
              {isShown ? "Hide the token" : "Show the token"}
            </button>
          </div>
          {isShown && <QrPicture text={`mesh-llm --join ${token}`} label="The join command as a QR code" />}
        </>
      )}
    </section>
  );
}
