// The quotas that the page Settings shows: of which model, what they are, and what came of a change.

import { signal } from "@preact/signals";

import type { QuotaDocument, QuotaReport } from "../api/quotas";
import { changeQuotas, readQuotaReport, readQuotas } from "../api/quotas";
import type { Polled } from "./polled";
import { nothing, polled } from "./polled";
import { asConfig } from "./quotas";
import { changesOf } from "./routing-form";
import { messageOf } from "./signals";

export interface Limited {
  document: QuotaDocument;
  report: QuotaReport;
}

export const quotaModel = signal(""); // "" for none
export const limited = signal<Polled<Limited>>(nothing);
export const quotaOutcome = signal<{ isGood: boolean; message: string } | null>(null);

export async function chooseQuotas(model: string): Promise<void> {
  quotaModel.value = model;
  quotaOutcome.value = null;
  limited.value = nothing;
  if (model !== "") await show(model);
}

async function show(model: string, changed?: QuotaDocument): Promise<void> {
  try {
    const [document, report] = await Promise.all([changed ?? readQuotas(model), readQuotaReport(model)]);
    if (quotaModel.value === model) {
      limited.value = polled(limited.value, { kind: "came", value: { document, report }, atMs: Date.now() });
    }
  } catch (error) {
    if (quotaModel.value === model) limited.value = polled(limited.value, { kind: "failed", problem: messageOf(error) });
  }
}

// Tells the node what was changed; the version lets it refuse what somebody else has changed meanwhile.
export async function saveQuotas(texts: Record<string, string>): Promise<void> {
  const known = limited.value.value;
  const model = quotaModel.value;
  if (!known) return;
  quotaOutcome.value = null;
  try {
    const changes = changesOf(asConfig(known.document), texts);
    const names = Object.keys(changes);
    if (names.length > 0) await show(model, await changeQuotas(model, { ...changes, version: known.document.version }));
    quotaOutcome.value = { isGood: true, message: names.length ? `Saved: ${names.join(", ")}.` : "Nothing was changed." };
  } catch (error) {
    quotaOutcome.value = { isGood: false, message: messageOf(error) };
  }
}
