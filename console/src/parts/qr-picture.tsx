import { qrCode } from "../state/qr";

const QUIET = 4; // squares of paper around it, without which readers don't find it

// A QR code, dark on light in both themes: readers expect that. Nothing for a text that no code holds.
export function QrPicture({ text, label }: { text: string; label: string }) {
  const rows = qrCode(text);
  if (!rows) return null;
  const side = rows.length + 2 * QUIET;
  const runs = rows.map((row, y) => row.map((isDark, x) => (isDark ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")).join(""));
  return (
    <svg class="qr" viewBox={`0 0 ${side} ${side}`} role="img" aria-label={label} shape-rendering="crispEdges">
      <rect width={side} height={side} fill="#fff" />
      <path d={runs.join("")} fill="#000" />
    </svg>
  );
}
