// The quotas of a model, as a form and as meters. Pure.

import type { QuotaDocument, QuotaReport } from "../api/quotas";
import type { RoutingConfig } from "../api/routing";

// Every key at the top, as the form of a configuration has them.
export function asConfig(document: QuotaDocument): RoutingConfig {
  const { model_id: _model, timezone: _timezone, quotas, ...others } = document;
  return { scope: "mesh", ...quotas, ...others };
}

export interface Usage {
  name: string;
  used: number;
  limit: number;
  words: string; // when it begins anew; "" for what has no window
  isBinding: boolean;
}

// How much of each limit is used; what has no limit is left out.
export function usageOf(report: QuotaReport): Usage[] {
  const windows = Object.entries(report.windows).map(([kind, { used, limit, resets_at }]) => ({ kind, used, limit, words: `until ${resets_at}` }));
  const all = report.concurrent ? [...windows, { kind: "concurrent", ...report.concurrent, words: "" }] : windows;
  return all.flatMap(({ kind, used, limit, words }) =>
    limit === null ? [] : [{ name: kind.replaceAll("_", " "), used, limit, words, isBinding: kind === report.binding }],
  );
}
