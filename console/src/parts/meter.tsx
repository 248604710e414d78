import { bytes } from "../state/format";

export function Meter({ label, used, total }: { label: string; used: number; total: number }) {
  return (
    <div class="meter">
      <span>{label}</span>
      <meter min={0} max={Math.max(1, total)} high={total * 0.85} value={used} aria-label={label} />
      <span class="amount">
        {bytes(used)} of {bytes(total)}
      </span>
    </div>
  );
}
