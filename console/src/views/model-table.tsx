import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import type { StatusDocument } from "../api/contract";
import { Badge } from "../parts/badge";
import { fitsOf } from "../state/fits";
import { bytes, count, parameters, tokens } from "../state/format";
import { confirm, isBusy, modelFilter, openFits, propose, showFits, unconfirmed } from "../state/ordering";
import type { Action, ModelRow } from "../state/rows";
import { actionsOf, fit, modelRows, rowNote, stateOf, whereabouts } from "../state/rows";
import { age_s, node, status } from "../state/signals";
import { paceWords } from "../state/speeds";

const ROWS_AT_ONCE = 40; // more than a screen shows: each costs something with every change

export function ModelTable({ known }: { known: StatusDocument }) {
  const rows = modelRows(known, modelFilter.value);
  const [most, setMost] = useState(ROWS_AT_ONCE);
  return (
    <>
      <label class="picker">
        <span>Find</span>
        <input
          type="search"
          value={modelFilter.value}
          placeholder="a part of a name"
          onInput={(event) => {
            modelFilter.value = event.currentTarget.value;
            setMost(ROWS_AT_ONCE);
          }}
        />
        <span role="status">{count(rows.length)} models</span>
      </label>
      <div class="scroll" tabIndex={0} role="region" aria-label="Models">
        <table>
          <thead>
            <tr>
              <th scope="col">Model</th>
              <th scope="col">State</th>
              <th scope="col">Where</th>
              <th scope="col">Fit</th>
              <th scope="col" class="number">
                Demand
              </th>
              <th scope="col" class="number">
                Context
              </th>
              <th scope="col" class="number">
                Size
              </th>
              <th scope="col">
                <span class="unseen">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, most).map((row) => (
              <Row key={row.id} row={row} known={known} />
            ))}
          </tbody>
        </table>
      </div>
      {rows.length > most && <More left={rows.length - most} onWanted={() => setMost((shown) => shown + ROWS_AT_ONCE)} />}
    </>
  );
}

// Whoever comes near the end of the table gets more of it, by scrolling or by the button.
function More({ left, onWanted }: { left: number; onWanted: () => void }) {
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const observer = new IntersectionObserver((seen) => seen.some(({ isIntersecting }) => isIntersecting) && onWanted());
    if (button.current) observer.observe(button.current);
    return () => observer.disconnect();
  }, [left]); // observed anew, it is told at once when the next rows do not fill the screen either
  return (
    <p class="more">
      <button type="button" ref={button} onClick={onWanted}>
        Show more
      </button>{" "}
      <span class="quiet-line">{count(left)} more; find one by its name.</span>
    </p>
  );
}

// Drawn anew only when something in it changed.
function Row({ row, known }: { row: ModelRow; known: StatusDocument }) {
  const { id, mesh, local } = row;
  const size = local?.size_bytes || mesh?.size_bytes || 0;
  const note = [rowNote(row, age_s.value), paceWords(node.value.paces.get(id), size)].filter(Boolean).join(" · ");
  const where = whereabouts(row, known);
  const isDefault = id === known.default_model;
  const isAlone = known.members.length < 2;
  const cells = () => <Cells {...{ row, size, note, where, isDefault, isAlone }} />;
  return useMemo(cells, [mesh, local, note, where, isDefault, isAlone]);
}

interface Shown {
  row: ModelRow;
  size: number;
  note: string;
  where: string;
  isDefault: boolean;
  isAlone: boolean;
}

function Cells({ row, size, note, where, isDefault, isAlone }: Shown) {
  const { id, mesh, local } = row;
  const state = stateOf(row);
  const context = local ? local.context_tokens || local.train_context_tokens : 0;
  return (
    <tr>
      <th scope="row">
        <span class="model-name">
          <span class="model-id">{id}</span>
          {isDefault && <span class="tag">default</span>}
          {local?.pinned && (
            <span class="tag" title="It stays in this node's memory, whatever else wants the room">
              pinned
            </span>
          )}
        </span>
        <small>{kindOf(row)}</small>
      </th>
      <td class="state">
        <Badge tone={state.tone}>{state.word}</Badge>
        {local?.progress && <progress value={local.progress.share} aria-label={`${id}: ${local.progress.stage}`} />}
        <small class={state.tone}>{note}</small>
      </td>
      <td data-label="Where">{where}</td>
      <td data-label="Fit" title={mesh?.lack || local?.waiting}>
        {isAlone ? fit(row) : <Fit row={row} />}
      </td>
      <td class="number" data-label="Demand" title={local ? `${count(local.requests)} requests here` : ""}>
        {mesh?.demand_per_min ? `${mesh.demand_per_min.toFixed(1)}/min` : "–"}
      </td>
      <td class="number" data-label="Context" title={local?.slots ? `${local.in_flight} of ${local.slots} slots` : ""}>
        {context ? tokens(context) : "–"}
      </td>
      <td class="number" data-label="Size" title={local?.memory_bytes ? `${bytes(local.memory_bytes)} in memory` : ""}>
        {size ? bytes(size) : "–"}
      </td>
      <td class="actions">
        <Actions row={row} />
      </td>
    </tr>
  );
}

// In one word; on demand for each node, which can be told to load it.
function Fit({ row }: { row: ModelRow }) {
  return (
    <details class="fits" open={openFits.value === row.id} onToggle={(event) => showFits(row.id, event.currentTarget.open)}>
      <summary>{fit(row)}</summary>
      {openFits.value === row.id && status.value && (
        <ul aria-label={`Fit of ${row.id}`}>
          {fitsOf(row, status.value).map((node) => (
            <li key={node.id}>
              <span class="model-id">{node.name}</span> <Badge tone={node.tone}>{node.words}</Badge>
              {node.canLoad && (
                <button
                  type="button"
                  class="copy"
                  aria-label={`Load ${row.id} at ${node.name}`}
                  disabled={isBusy(row.id, "load")}
                  onClick={() => propose(row.id, { change: "load", words: "Load", question: "", at: node.id })}
                >
                  Load there
                </button>
              )}
            </li>
          ))}
        </ul>
      )}
    </details>
  );
}

function kindOf({ local }: ModelRow): string {
  if (!local) return "";
  return [local.architecture, parameters(local.parameters), local.quantization, ...local.aliases].filter(Boolean).join(" · ");
}

function Actions({ row }: { row: ModelRow }) {
  const proposed = unconfirmed.value;
  if (proposed?.model === row.id) return <Question id={row.id} action={proposed.action} />;
  const isAway = node.value.connection !== "live";
  return (
    <>
      {actionsOf(row).map((action) => (
        <button
          key={action.change}
          type="button"
          disabled={isAway || isBusy(row.id, action.change)}
          aria-label={`${action.words}: ${row.id}`}
          onClick={() => propose(row.id, action)}
        >
          {action.words}
        </button>
      ))}
    </>
  );
}

function Question({ id, action }: { id: string; action: Action }) {
  const first = useRef<HTMLButtonElement>(null);
  useEffect(() => first.current?.focus(), []); // the button that had the keyboard is gone
  return (
    <div class="question" role="group" aria-label={`${action.words}: ${id}?`}>
      <p>{action.question}</p>
      <button type="button" class="stop" ref={first} onClick={() => confirm(true)}>
        {action.words}
      </button>
      <button type="button" onClick={() => confirm(false)}>
        Leave it
      </button>
    </div>
  );
}
