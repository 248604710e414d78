import type { StatusDocument } from "../api/contract";
import type { Split } from "../state/splits";
import type { Line, Spot } from "../state/topology";
import { HEIGHT, picture, WIDTH } from "../state/topology";

const DOT = 7;

// A look from above; whoever cannot see it reads the same in the cards below.
export function MeshMap({ known, model, split }: { known: StatusDocument; model: string; split: Split | null }) {
  const { spots, lines } = picture(known, model, split);
  const drawn = lines.filter(({ kind }) => kind !== "told").length;
  return (
    <svg
      class="mesh-map"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`Map: ${spots.length} nodes, ${drawn} links from here`}
    >
      {lines.map((line) => (
        <Link key={line.key} line={line} />
      ))}
      {spots.map((spot) => (
        <Node key={spot.id} spot={spot} isQuiet={model !== "" && !spot.isHost} />
      ))}
    </svg>
  );
}

function Link({ line: { from, to, kind, words } }: { line: Line }) {
  return (
    <line class={`link ${kind} ${to.tone}`} x1={from.x} y1={from.y} x2={to.x} y2={to.y}>
      <title>{words}</title>
    </line>
  );
}

function Node({ spot, isQuiet }: { spot: Spot; isQuiet: boolean }) {
  const looks = ["spot", spot.tone, spot.isMe ? "me" : "", spot.isHost ? "hosting" : "", isQuiet ? "faint" : ""];
  const gap = spot.isMe ? 0 : DOT + 5;
  return (
    <g class={looks.filter(Boolean).join(" ")} transform={`translate(${spot.x} ${spot.y})`}>
      <title>{spot.words}</title>
      <circle r={spot.isMe ? DOT + 3 : DOT} />
      <text
        x={spot.isFlipped ? -gap : gap}
        y={spot.isMe ? DOT + 18 : 4}
        text-anchor={spot.isMe ? "middle" : spot.isFlipped ? "end" : "start"}
        transform={spot.isMe ? undefined : `rotate(${spot.labelTurn})`}
      >
        {spot.name}
      </text>
    </g>
  );
}
