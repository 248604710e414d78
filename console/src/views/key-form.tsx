import { useKey } from "../state/signals";

export function KeyForm() {
  return (
    <form
      class="key-form panel"
      onSubmit={(event) => {
        event.preventDefault();
        useKey(String(new FormData(event.currentTarget).get("key") ?? ""));
      }}
    >
      <h2>This node asks for its API key</h2>
      <p>
        It is the one that the node was started with (MESH_LLM_API_KEY); where there is a key for administration
        (MESH_LLM_ADMIN_KEY), that one opens everything. This browser keeps it for this address only.
      </p>
      <label>
        API key
        <input name="key" type="password" autocomplete="current-password" required autofocus />
      </label>
      <button type="submit" class="primary">
        Open the console
      </button>
    </form>
  );
}
