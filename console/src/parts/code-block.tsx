import { CopyButton } from "./copy-button";

export function CodeBlock({ text, label }: { text: string; label: string }) {
  return (
    <figure class="code-block">
      <figcaption>
        <span>{label}</span>
        <CopyButton text={text} label={`Copy ${label || "code"}`} />
      </figcaption>
      <pre tabIndex={0}>
        <code>{text}</code>
      </pre>
    </figure>
  );
}
