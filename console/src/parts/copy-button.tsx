import { useSignal } from "@preact/signals";

export function CopyButton({ text, label }: { text: string; label: string }) {
  const said = useSignal("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.value = "Copied";
    } catch {
      said.value = "Select it by hand"; // browsers give the clipboard to secure addresses and localhost only
    }
    setTimeout(() => (said.value = ""), 1500);
  };
  return (
    <button type="button" class="copy" aria-label={label} onClick={() => void copy()}>
      <span aria-live="polite">{said.value || "Copy"}</span>
    </button>
  );
}
