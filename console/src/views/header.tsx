import { CopyButton } from "../parts/copy-button";
import { duration } from "../state/format";
import { staleForS } from "../state/selectors";
import { age_s, node, nowMs, status } from "../state/signals";

export function Header() {
  const known = status.value;
  return (
    <header>
      <div class="brand">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <path d="M8 23 16 9l8 14Z" />
          <circle cx="16" cy="9" r="4.5" />
          <circle cx="8" cy="23" r="4.5" />
          <circle cx="24" cy="23" r="4.5" class="accent" />
        </svg>
        <h1>
          mesh-llm{known && <span class="node-name">{known.node.name}</span>}
        </h1>
      </div>
      {known && (
        <div class="facts">
          <span class="address">
            <code>{known.node.address}</code>
            <CopyButton text={known.node.address} label="Copy the address" />
          </span>
          <span title={`node ${known.node.id}`}>version {known.node.version}</span>
          <span>up {duration(known.node.uptime_s + age_s.value)}</span>
        </div>
      )}
      <Connection />
    </header>
  );
}

function Connection() {
  const { connection, reason } = node.value;
  const stale = staleForS(node.value, nowMs.value);
  const words = {
    live: "live",
    connecting: "connecting…",
    refused: "needs an API key",
    lost: stale === null ? `not connected: ${reason}` : `data from ${duration(stale)} ago`,
  }[connection];
  return (
    <p class={`connection ${connection}`} role="status" title={reason}>
      {words}
    </p>
  );
}
