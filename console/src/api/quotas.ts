// The documents of /quotas/{model} and /quotas/{model}/report: meshllm/api/quotas.py in TypeScript.

import { read, request } from "./client";

// Keys come and go with versions: the console edits what it finds, by the kind of its value.
export type QuotaDocument = { model_id: string; version: number; quotas: Record<string, unknown> } & Record<string, unknown>;

export interface QuotaReport {
  mode: string;
  binding?: string | null; // the limit of which least is left
  windows: Record<string, { used: number; limit: number | null; percent: number; resets_at: string }>;
  concurrent?: { used: number; limit: number | null };
}

const path = (model: string): string => `quotas/${model.split("/").map(encodeURIComponent).join("/")}`;

export const readQuotas = (model: string, signal?: AbortSignal) => read<QuotaDocument>(path(model), signal);

export const readQuotaReport = (model: string, signal?: AbortSignal) => read<QuotaReport>(`${path(model)}/report`, signal);

export async function changeQuotas(model: string, changes: Record<string, unknown>): Promise<QuotaDocument> {
  return (await (await request(path(model), { body: changes })).json()) as QuotaDocument;
}
